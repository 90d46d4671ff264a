import type { Plan } from "../config/plan-types.ts";
import type { Log } from "../config/lifecycle.ts";
import { type Direction, directionFrom, phaseIndex } from "../config/words.ts";
import { progress } from "../store/control/chunk-ledger.ts";
import type { Migration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { isVerifying, lastVerifyRun, type VerifyRun } from "../store/control/verify-runs.ts";
import { restAfter } from "./throttle.ts";
import { verifyUnlessBusy } from "./verify.ts";

/** Share of its time that comparing works while there is time enough until the last clean comparison is too old. */
const GENTLE = 0.25;

/** Why nothing is compared unasked at the moment; undefined: a comparison of `direction` is due. Pure. */
export function whyNotDue(
  plan: Pick<Plan, "verify" | "reverse" | "gates">,
  migration: Migration,
  last: VerifyRun | undefined,
): string | undefined {
  const { phase, authority, epoch, gap, paused } = migration;
  if (!plan.verify.continuous) return "verify.continuous is false";
  if (phaseIndex(phase) < phaseIndex("shadow") || phase === "done")
    return "the phase asks for none, or makes its own";
  if (gap !== undefined) return "every table is copied again";
  if (paused.backfill || paused.mirror) return "paused";
  if (authority === "new" && plan.reverse === undefined) return "nothing is mirrored back";
  if (last === undefined || last.epoch !== epoch) return undefined;
  return last.ageMs > plan.gates.verifyMaxAgeMs / 2 ? undefined : "compared not long ago";
}

export interface ContinuousOptions {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly log: Log;
  readonly migration: Migration;
  /** How fast the copy may go now: comparing reads the same databases. */
  readonly share: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * Compares everything once more, gently, if that is due: after the first clean comparison until the flip, and in reverse
 * after it. Repairs nothing: what it finds shuts the gate. It yields to comparisons that somebody asked for.
 */
export async function verifyIfDue(options: ContinuousOptions): Promise<VerifyRun | undefined> {
  const { plan, store, log, migration, signal } = options;
  const direction = directionFrom(migration.authority);
  const last = await lastVerifyRun(store, direction);
  if (whyNotDue(plan, migration, last) !== undefined) return undefined;
  if ((await isVerifying(store)) || (await isIncomplete(store, direction))) return undefined;
  const began = performance.now();
  const rest = (ms: number) => {
    const late = performance.now() - began > plan.gates.verifyMaxAgeMs / 4;
    return options.sleep(restAfter(ms, options.share() * (late ? 1 : GENTLE)));
  };
  const { epoch } = migration;
  const by = "continuous";
  return verifyUnlessBusy({
    plan,
    store,
    log,
    direction,
    epoch,
    by,
    repair: false,
    rest,
    signal,
  });
}

/** Chunks that are not copied yet would all be missing. */
async function isIncomplete(store: ControlStore, direction: Direction): Promise<boolean> {
  return (await progress(store, direction)).some((table) => table.done < table.chunks);
}
