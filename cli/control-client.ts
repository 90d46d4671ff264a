import { randomBytes } from "node:crypto";
import { CrossfadeError } from "../config/errors.ts";
import { listen, type Listener } from "../store/control/listen.ts";
import { closeControlStore, type ControlStore, openControlStore } from "../store/control/open.ts";
import { isInstalled } from "../store/control/schema.ts";
import type { Context } from "./command.ts";

/** Opens the control store for one command and closes it afterwards. Throws REFUSED if it is not there. */
async function withStore<T>(
  { plan }: Context,
  work: (store: ControlStore) => Promise<T>,
): Promise<T> {
  const store = openControlStore(plan, { role: "cli", instance: randomBytes(4).toString("hex") });
  try {
    if (!(await isInstalled(store))) {
      throw new CrossfadeError(
        "REFUSED",
        `the migration ${plan.name} has not begun: there is no control store yet`,
        {
          hint: "Start `crossfade up` first.",
        },
      );
    }
    return await work(store);
  } finally {
    await closeControlStore(store);
  }
}

/** `withStore`, listening on the plan's channel as well. */
export async function withListener<T>(
  context: Context,
  work: (store: ControlStore, listener: Listener) => Promise<T>,
): Promise<T> {
  return withStore(context, async (store) => {
    const listener = listen(store, context.log, "controller");
    try {
      return await work(store, listener);
    } finally {
      await listener.close();
    }
  });
}
