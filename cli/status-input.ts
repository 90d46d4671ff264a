import { listen } from "../store/control/listen.ts";
import { closeControlStore, openControlStore } from "../store/control/open.ts";
import type { StatusInput } from "../switchover/status.ts";
import { openRealEngine } from "../switchover/wiring.ts";
import type { Context } from "./command.ts";

/** What reading the status needs, open while `work` runs. */
export async function withStatusInput<T>(
  { plan, log }: Context,
  work: (input: StatusInput) => Promise<T>,
): Promise<T> {
  const store = openControlStore(plan, { role: "cli", instance: "status" });
  const listener = listen(store, log, "controller");
  try {
    return await work({ plan, store, engine: openRealEngine({ plan, store, listener, log }), log });
  } finally {
    await listener.close();
    await closeControlStore(store);
  }
}
