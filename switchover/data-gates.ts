import { phaseIndex } from "../config/words.ts";
import type { TableProgress } from "../store/control/chunk-ledger.ts";
import type { VerifyRun } from "../store/control/verify-runs.ts";
import { FRESH_MS, activeDirection } from "./gate-facts.ts";
import type { GateFacts, GateLimits, GateResult } from "./gate-facts.ts";
import { span } from "./spans.ts";

/** Gates about rows: whether they are mirrored, copied, equal, and would come back. Pure. */

/** After a flip without a reverse mapping nothing is mirrored, so there is nothing to measure. */
function nothingMirrored(facts: GateFacts, limits: GateLimits): boolean {
  return facts.migration.authority === "new" && !limits.reverse;
}

export function gapGate({ migration }: GateFacts): GateResult {
  const gate = { name: "gap", limit: "none" } as const;
  if (migration.gap === undefined)
    return {
      ...gate,
      state: "pass",
      value: "none",
      why: "neither database went back in time",
      heals: "never",
    };
  return {
    ...gate,
    state: "fail",
    value: migration.gap,
    why: "every table has to be copied and compared again",
    heals: "by-waiting",
  };
}

export function lagGate(facts: GateFacts, limits: GateLimits): GateResult {
  const { mirror, migration } = facts;
  const gate = { name: "lag", limit: `${limits.lagMs} ms` } as const;
  if (nothingMirrored(facts, limits))
    return { ...gate, state: "pass", value: null, why: "nothing is mirrored back", heals: "never" };
  const unknown = (why: string): GateResult => ({
    ...gate,
    state: "unknown",
    value: null,
    why,
    heals: "by-waiting",
  });
  if (mirror === undefined)
    return unknown("no mirror has reported: is `crossfade mirror` (or `up`) running?");
  if (mirror.seenMs > FRESH_MS)
    return unknown(`the mirror was last seen ${span(mirror.seenMs)} ago`);
  const { direction, epoch, state, lag_ms: lag, why } = mirror.stats;
  if (direction !== activeDirection(migration) || epoch !== migration.epoch) {
    return unknown(
      `the mirror follows ${direction} at epoch ${epoch}, not ${activeDirection(migration)} at epoch ${migration.epoch}`,
    );
  }
  if (state !== "running")
    return {
      ...unknown(`the mirror is ${state}${why === undefined ? "" : `: ${why}`}`),
      value: `${Math.round(lag)} ms`,
    };
  const value = `${Math.round(lag)} ms`;
  if (lag < limits.lagMs)
    return { ...gate, state: "pass", value, why: "the mirror keeps up", heals: "never" };
  return { ...gate, state: "fail", value, why: "the mirror is behind", heals: "by-waiting" };
}

export function backfillGate(progress: readonly TableProgress[]): GateResult {
  const gate = { name: "backfill", limit: "all chunks" } as const;
  if (progress.length === 0)
    return {
      ...gate,
      state: "unknown",
      value: null,
      why: "no chunks are planned",
      heals: "by-waiting",
    };
  const sum = (of: (table: TableProgress) => number) =>
    progress.reduce((total, table) => total + of(table), 0);
  const [done, chunks, failed] = [sum((t) => t.done), sum((t) => t.chunks), sum((t) => t.failed)];
  const value = `${done} of ${chunks} chunks`;
  if (failed > 0) {
    const example = progress.find((table) => table.failed > 0);
    const why = `${failed} chunks failed, e.g. of ${example?.table}: ${example?.error}; \`crossfade resume\` tries them again`;
    return { ...gate, state: "fail", value, why, heals: "never" };
  }
  if (done === chunks)
    return { ...gate, state: "pass", value, why: "every row was copied", heals: "never" };
  return { ...gate, state: "fail", value, why: "rows are still being copied", heals: "by-waiting" };
}

export function verifyGate(facts: GateFacts, limits: GateLimits): GateResult {
  const gate = {
    name: "verify",
    limit: `clean, at most ${span(limits.verifyMaxAgeMs)} old`,
  } as const;
  if (nothingMirrored(facts, limits))
    return { ...gate, state: "pass", value: null, why: "nothing is mirrored back", heals: "never" };
  const { clean, lastRun, migration } = facts;
  const blocked = (state: "fail" | "unknown", value: string | null, why: string): GateResult => {
    return { ...gate, state, value, why, heals: "by-verify" };
  };
  if (
    lastRun?.state === "dirty" &&
    lastRun.allTables &&
    (clean === undefined || lastRun.id > clean.id)
  ) {
    return blocked("fail", describeRun(lastRun), "the last comparison found differences");
  }
  if (clean === undefined) return blocked("unknown", null, "no clean comparison of all tables yet");
  // What was compared first is as old as its beginning.
  const value = `clean, begun ${span(clean.ageMs)} ago`;
  if (clean.epoch !== migration.epoch)
    return blocked("unknown", value, "authority has moved since the last clean comparison");
  if (
    phaseIndex(migration.phase) < phaseIndex("write-new") &&
    !startedAfterBackfill(clean, facts.progress)
  ) {
    return blocked("unknown", value, "rows were copied after the last clean comparison began");
  }
  if (clean.ageMs > limits.verifyMaxAgeMs)
    return blocked("fail", value, "the last clean comparison is too old");
  const why = "every mapped row was compared and none differed";
  return { ...gate, state: "pass", value, why, heals: "never" };
}

function startedAfterBackfill(run: VerifyRun, progress: readonly TableProgress[]): boolean {
  return progress.every(
    ({ finishedAt }) => finishedAt !== undefined && run.startedAt >= finishedAt,
  );
}

/** `3 missing, 0 extra, 1 different` */
export function describeRun(run: Pick<VerifyRun, "missing" | "extra" | "different">): string {
  return `${run.missing} missing, ${run.extra} extra, ${run.different} different`;
}

export function quarantineGate(facts: GateFacts, limits: GateLimits): GateResult {
  const gate = { name: "quarantine", limit: 0 } as const;
  if (nothingMirrored(facts, limits))
    return { ...gate, state: "pass", value: 0, why: "nothing is mirrored back", heals: "never" };
  const { quarantine } = facts;
  if (typeof quarantine === "string")
    return { ...gate, state: "unknown", value: null, why: quarantine, heals: "by-waiting" };
  if (quarantine.open === 0) {
    const why =
      quarantine.accepted === 0
        ? "every row is carried over"
        : `the loss of ${quarantine.accepted} keys is accepted`;
    return { ...gate, state: "pass", value: 0, why, heals: "never" };
  }
  const why = "see `crossfade quarantine list`; repair the rows, or accept their loss";
  return { ...gate, state: "fail", value: quarantine.open, why, heals: "never" };
}

export function reverseGate(facts: GateFacts, limits: GateLimits): GateResult {
  const gate = { name: "reverse", limit: "a reverse mapping, or --no-way-back" } as const;
  if (limits.reverse)
    return {
      ...gate,
      state: "pass",
      value: "mapped",
      why: "`reverse:` keeps old whole after the flip",
      heals: "never",
    };
  if (facts.noWayBack)
    return {
      ...gate,
      state: "pass",
      value: "none",
      why: "confirmed: there is no way back",
      heals: "never",
    };
  const why =
    "after write-new nothing follows the old schema: confirm with --no-way-back, or add `reverse:` to the plan";
  return { ...gate, state: "fail", value: "none", why, heals: "never" };
}

/**
 * Whether what was written on new survives the way back. A finding needs a person's word; where nothing was proved yet the
 * way back stays open (`blocks`): right after a flip it may be needed at once.
 */
export function roundTripGate({ roundTrip, roundTripAccepted }: GateFacts): GateResult {
  const gate = { name: "round-trip", limit: "0 rows" } as const;
  const proof = roundTrip?.roundTrip;
  if (roundTrip === undefined || proof === undefined) {
    const why = "not proved since the flip; a clean `crossfade verify` proves it";
    return { ...gate, state: "unknown", value: null, why, heals: "by-verify" };
  }
  const { failed, compared: samples } = proof;
  const value = `${failed} rows`;
  if (failed === 0) {
    const why = `${span(roundTrip.ageMs)} ago every row of new would have come back as it was`;
    return { ...gate, state: "pass", value, samples, why, heals: "never" };
  }
  if (roundTripAccepted) {
    const why = "confirmed: these rows do not survive the way back as they are";
    return { ...gate, state: "pass", value, samples, why, heals: "never" };
  }
  const why =
    "rows written on new do not survive the way back as they are: `crossfade status --json` lists some; correct them or `reverse:`, or confirm with --accept-round-trip";
  return { ...gate, state: "fail", value, samples, why, heals: "by-verify" };
}
