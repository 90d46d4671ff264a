import type { Phase } from "../config/words.ts";
import { listen } from "../store/control/listen.ts";
import { closeControlStore, openPassingStore } from "../store/control/open.ts";
import { install } from "../store/control/schema.ts";
import { advance, type WalkResult } from "../switchover/walk.ts";
import { openRealEngine } from "../switchover/wiring.ts";
import type { Context } from "./command.ts";
import { userName } from "./request.ts";
import { validatePlan } from "./validate.ts";

/** `advance --dry-run` of a migration that has not begun: it begins nothing, so its control store is gone with it. */
export async function lookAhead(
  { plan, log, signal }: Context,
  to: Phase | undefined,
): Promise<WalkResult> {
  await validatePlan(plan);
  const store = openPassingStore(plan);
  const listener = listen(store, log);
  try {
    await install(store);
    const engine = openRealEngine({ plan, store, listener, log });
    const execution = { plan, store, engine, log, signal, ending: signal, by: `cli:${userName()}` };
    return await advance({ ...execution, lead: async () => {} }, { to, wait: false, dryRun: true });
  } finally {
    await listener.close();
    await closeControlStore(store);
  }
}
