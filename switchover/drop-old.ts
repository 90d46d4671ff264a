import { CrossfadeError } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import { addEvent } from "../store/control/history.ts";
import { readMigration, readPhaseAge } from "../store/control/migration.ts";
import type { Execution } from "./effects.ts";

/** Without `stay.done`: time to find out that something still reads the old tables. */
const DEFAULT_STAY_MS = 7 * 86_400_000;

/** How long the old tables stay after `done`. */
export function stayOfOld({ policy }: Plan): number {
  return policy.stayMs.done ?? DEFAULT_STAY_MS;
}

/** Drops the old tables that `done` has moved aside: only in done, and only after its stay. Whoever asks has confirmed it. */
export async function dropOld(execution: Execution): Promise<unknown> {
  const { store, plan, engine, lead, by } = execution;
  const { phase } = await readMigration(store);
  if (phase !== "done") {
    throw new CrossfadeError("REFUSED", `in phase ${phase} the old tables are still needed`, {
      hint: "`crossfade advance --to done` comes first.",
    });
  }
  const stayMs = stayOfOld(plan);
  const sinceMs = await readPhaseAge(store);
  if (sinceMs < stayMs) {
    const from = new Date(Date.now() + stayMs - sinceMs).toISOString();
    throw new CrossfadeError("REFUSED", `the old tables stay until ${from}`, {
      hint: "`stay: { done: 7d }` in the plan says how long.",
    });
  }
  await lead();
  const dropped = await engine.dropOld();
  await addEvent(store, { kind: "drop-old", by, detail: { dropped } });
  return { dropped };
}
