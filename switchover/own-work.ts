import { missingObjects } from "../backfill/rebuilding.ts";
import type { Plan } from "../config/plan-types.ts";
import { phaseIndex } from "../config/words.ts";
import { progress } from "../store/control/chunk-ledger.ts";
import { addEvent } from "../store/control/history.ts";
import type { Migration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { runEffect, verifyUntilClean } from "./effects.ts";
import type { Execution } from "./effects.ts";
import type { Engine } from "./engine.ts";
import { gatherFacts, gateLimits } from "./facts.ts";
import { evaluateGates } from "./gates.ts";
import { healGap } from "./heal-gap.ts";

/** What a controller does without being asked: what the phase needs and nobody has done, e.g. after a crash in the middle. */
export type OwnWork = (execution: Execution) => Promise<unknown>;

/** The work that is due now; undefined: none. */
export async function ownWork(
  store: ControlStore,
  engine: Engine,
  plan: Plan,
  migration: Migration,
): Promise<OwnWork | undefined> {
  const { phase } = migration;
  // Before and without a copy new has all it had: whatever ended before its end, or after the plan was changed.
  if (phaseIndex(phase) < phaseIndex("backfill") && (await missingObjects(store)).length > 0)
    return (execution) => runEffect(execution, { do: "rebuild" });
  if (phase === "off" || phase === "done") return undefined;
  // What is copied while nothing follows would have to be copied again.
  if (migration.gap !== undefined && !migration.paused.mirror)
    return (execution) => healGap(execution, migration);
  if (phase === "backfill" && (await progress(store, "forward")).length === 0) {
    return (execution) => runEffect(execution, { do: "plan-chunks" });
  }
  if (phase === "verify") {
    const facts = await gatherFacts(store, engine);
    const gates = evaluateGates(
      ["gap", "lag", "backfill", "verify"],
      "shadow",
      facts,
      gateLimits(plan),
    );
    const blocking = gates.filter((gate) => gate.state !== "pass");
    return blocking.length === 1 && blocking[0]?.name === "verify" ? verifyUntilClean : undefined;
  }
  return undefined;
}

/**
 * No flip runs here, and yet one is not at its end, or the sides disagree, or both (or none) take writes: a database was away
 * when a flip was undone, failed over or was restored, or new was given up while it was away. Recovery brings them to one
 * authority, the one with the higher epoch, before anything is synced.
 */
export const bringInOrder: OwnWork = async ({ engine, store, ending, by, log }) => {
  const recovery = await engine.recover(ending);
  await addEvent(store, { kind: "recovery", by, detail: { ...recovery } });
  log.warn({ recovery }, "controller: the sides disagreed about the authority");
};
