import type { PolicyPlan } from "../config/policy.ts";
import type { ServerLimits } from "../config/server-limits.ts";
import { directionFrom, phaseIndex } from "../config/words.ts";
import type { Direction, Phase } from "../config/words.ts";
import type { TableProgress } from "../store/control/chunk-ledger.ts";
import type { DeferredRow } from "../store/control/deferred-objects.ts";
import type { Receipt } from "../store/control/history.ts";
import type { Migration } from "../store/control/migration.ts";
import type { SidecarSeen } from "../store/control/sidecars.ts";
import type { VerifyRun } from "../store/control/verify-runs.ts";
import type { WorkerSeen } from "../store/control/workers.ts";
import type { CompareLimits } from "./compare-sides.ts";
import { canaryGate, drillGate, stayGate, windowGate } from "./policy-gates.ts";
import type { Leaving } from "./policy-gates.ts";
import { rebuildGate } from "./rebuild-gate.ts";
import { type CopyEstimate, roomGate } from "./room-gate.ts";
import { serverGates } from "./server-gates.ts";
import type { Servers } from "./server-gates.ts";
import { sumShadow } from "./shadow.ts";
import { span } from "./spans.ts";

/** Gates: pure functions from facts to a verdict with its value, its limit and its reason. Unknown blocks (DESIGN §2.10). */

export const GATE_NAMES = [
  "gap",
  "lag",
  "backfill",
  "verify",
  "shadow",
  "quarantine",
  "sidecars",
  "reverse",
  "approvals",
  "stay",
  "window",
  "canary",
  "drill",
  "round-trip",
  "transactions",
  "replicas",
  "wal",
  "disk",
  "room",
  "rebuild",
] as const;
export type GateName = (typeof GATE_NAMES)[number];
/** The others depend on more than facts and limits: `gatesInto` alone evaluates them. */
export type PlainGate = Exclude<
  GateName,
  "stay" | "window" | "drill" | "transactions" | "replicas" | "wal" | "disk" | "room" | "rebuild"
>;

export interface Gate {
  readonly name: GateName;
  readonly state: "pass" | "fail" | "unknown";
  readonly value: string | number | null;
  readonly limit: string | number | null;
  /** How many observations the verdict rests on, where it rests on a count. */
  readonly samples?: number;
  /** A sentence, also of what passes. */
  readonly why: string;
}

/** A verdict, and whether waiting or a verify run may change it: `--wait` waits only for those. */
export interface GateResult extends Gate {
  readonly heals: "never" | "by-waiting" | "by-verify";
}

export interface QuarantineCount {
  /** Keys that are quarantined or still deferred, and not accepted. */
  readonly open: number;
  readonly accepted: number;
}

/** Everything the gates look at, of one moment. */
export interface GateFacts {
  readonly migration: Migration;
  readonly mirror: WorkerSeen<"mirror"> | undefined;
  /** Chunk ledger of forward. */
  readonly progress: readonly TableProgress[];
  /** Last clean run over all tables in the active direction. */
  readonly clean: VerifyRun | undefined;
  /** Last run of the active direction, whatever it found. */
  readonly lastRun: VerifyRun | undefined;
  /** Of the active direction; a text says why it cannot be read. */
  readonly quarantine: QuarantineCount | string;
  readonly sidecars: readonly SidecarSeen[];
  readonly approvals: readonly {
    readonly phase: Phase;
    readonly name: string;
    readonly reason?: string | undefined;
  }[];
  /** Going to write-new without a reverse mapping was confirmed, now or before. */
  readonly noWayBack: boolean;
  /** How long the migration has been in its phase, in canary: in its step. */
  readonly inPhaseMs: number;
  readonly now: Date;
  /** The last one, good or not. */
  readonly drill: { readonly receipt: Receipt; readonly ageMs: number } | undefined;
  /** The last comparison of this epoch whose round trip says something. */
  readonly roundTrip: VerifyRun | undefined;
  /** Going back although rows do not come back as they are was confirmed, now. */
  readonly roundTripAccepted: boolean;
  /** Undefined: not asked, because the plan limits nothing there. */
  readonly servers: Servers | undefined;
  /** Undefined: not asked, because nothing is about to be copied. */
  readonly copy: CopyEstimate | undefined;
  /** What was dropped for the copy, also what is back. */
  readonly deferred: readonly DeferredRow[];
}

/** What of the plan limits them. */
export interface GateLimits {
  readonly lagMs: number;
  readonly verifyMaxAgeMs: number;
  /** `sample` 0: reads are not compared. `mismatch`: the largest share of compared reads. */
  readonly shadow: { readonly sample: number; readonly samples: number; readonly mismatch: number };
  readonly approvals: Readonly<Record<string, number>>;
  readonly reverse: boolean;
  readonly stayMs: Readonly<Partial<Record<Phase, number>>>;
  readonly windows: PolicyPlan["windows"];
  readonly canary: CompareLimits;
  readonly drillMaxAgeMs: number | undefined;
  readonly servers: ServerLimits;
  /** How much the copy may take on the new database's disk. */
  readonly diskFreeBytes: number | undefined;
}

/** Heartbeats come every second or so: older than this and a process says nothing about now. */
export const FRESH_MS = 5_000;

/** Which gates guard the way into a phase. Approvals come on top of every one the plan asks them for. */
export const GATES_OF: Readonly<Record<Phase, readonly PlainGate[]>> = {
  off: [],
  "dual-write": [],
  backfill: ["gap", "lag"],
  verify: ["gap", "lag", "backfill"],
  shadow: ["gap", "lag", "backfill", "verify"],
  canary: ["gap", "lag", "backfill", "verify", "shadow", "sidecars"],
  "read-new": ["gap", "lag", "backfill", "verify", "sidecars"],
  "write-new": ["gap", "lag", "backfill", "verify", "quarantine", "sidecars", "reverse"],
  done: ["gap", "lag", "verify", "quarantine", "sidecars"],
};

/** Gates of a rollback out of a phase: only a flip back can lose something. A missing sidecar does not block the way out. */
export const ROLLBACK_GATES_OF: Readonly<Record<Phase, readonly PlainGate[]>> = {
  off: [],
  "dual-write": [],
  backfill: [],
  verify: [],
  shadow: [],
  canary: [],
  "read-new": [],
  "write-new": ["gap", "lag", "quarantine", "round-trip"],
  done: [],
};

/** Gates of a drill: what a flip needs, but nothing that only matters once it is decided. */
export const DRILL_GATES: readonly PlainGate[] = ["gap", "lag", "sidecars"];

/** The gates on the way into `phase`. */
export function gatesInto(
  phase: Phase,
  facts: GateFacts,
  limits: GateLimits,
  leaving: Leaving = { phase: facts.migration.phase, sinceMs: facts.inPhaseMs },
): GateResult[] {
  const names: PlainGate[] = [...GATES_OF[phase]];
  if (leaving.phase === "canary") names.push("canary");
  if ((limits.approvals[phase] ?? 0) > 0) names.push("approvals");
  const asked = [
    phase === "backfill" ? roomGate(facts.copy, limits.diskFreeBytes) : undefined,
    rebuildGate(phase, facts.deferred),
    phase === "write-new" ? drillGate(facts, limits) : undefined,
    stayGate(leaving, limits),
    windowGate(phase, facts.now, limits),
  ];
  return [
    ...evaluateGates(names, phase, facts, limits),
    ...asked.filter((gate) => gate !== undefined),
    ...serverGates(facts.servers, limits.servers),
  ];
}

export function evaluateGates(
  names: readonly PlainGate[],
  phase: Phase,
  facts: GateFacts,
  limits: GateLimits,
): GateResult[] {
  return names.map((name) => evaluate(name, phase, facts, limits));
}

function evaluate(name: PlainGate, phase: Phase, facts: GateFacts, limits: GateLimits): GateResult {
  switch (name) {
    case "gap":
      return gapGate(facts);
    case "lag":
      return lagGate(facts, limits);
    case "backfill":
      return backfillGate(facts.progress);
    case "verify":
      return verifyGate(facts, limits);
    case "shadow":
      return shadowGate(facts, limits);
    case "quarantine":
      return quarantineGate(facts, limits);
    case "sidecars":
      return sidecarsGate(facts);
    case "reverse":
      return reverseGate(facts, limits);
    case "round-trip":
      return roundTripGate(facts);
    case "approvals":
      return approvalsGate(phase, facts, limits);
    case "canary":
      return canaryGate(facts.migration, liveSidecars(facts), limits);
  }
}

/** The direction that is active: where the authority's changes go. */
export function activeDirection(migration: Migration): Direction {
  return directionFrom(migration.authority);
}

/** After a flip without a reverse mapping nothing is mirrored, so there is nothing to measure. */
function nothingMirrored(facts: GateFacts, limits: GateLimits): boolean {
  return facts.migration.authority === "new" && !limits.reverse;
}

function gapGate({ migration }: GateFacts): GateResult {
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

function lagGate(facts: GateFacts, limits: GateLimits): GateResult {
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

function backfillGate(progress: readonly TableProgress[]): GateResult {
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

function verifyGate(facts: GateFacts, limits: GateLimits): GateResult {
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

/** What a sidecar that was not seen for long has counted may be of an earlier stay in the phase. */
function shadowGate({ sidecars }: GateFacts, { shadow: limits }: GateLimits): GateResult {
  const limit = `at least ${limits.samples} reads, at most ${percent(limits.mismatch)} different`;
  const gate = { name: "shadow", limit } as const;
  if (limits.sample === 0) {
    const why = "not required: shadow.sample is 0%";
    return { ...gate, state: "pass", value: null, limit: null, why, heals: "never" };
  }
  const { samples, mismatches, unjudged, groups } = sumShadow(liveSidecars({ sidecars }));
  const value = `${mismatches} of ${samples} reads different`;
  if (samples < limits.samples) {
    const why = "too few reads were compared to say";
    const all = unjudged === 0 ? why : `${why}; ${withoutVerdict(unjudged)}`;
    return { ...gate, state: "unknown", value, samples, why: all, heals: "by-waiting" };
  }
  if (mismatches + unjudged <= (samples + unjudged) * limits.mismatch)
    return {
      ...gate,
      state: "pass",
      value,
      samples,
      why:
        mismatches === 0
          ? "both apps answer alike"
          : "what differs is within what the plan allows: look at it before going on",
      heals: "never",
    };
  if (mismatches <= samples * limits.mismatch) {
    const why = withoutVerdict(unjudged);
    return { ...gate, state: "unknown", value, samples, why, heals: "by-waiting" };
  }
  const most = groups[0] === undefined ? "" : `mostly ${groups[0].route} at ${groups[0].path}; `;
  const why = `${most}see \`crossfade status --json\`; repair the new app, then \`rollback --to verify\` and back counts anew`;
  return { ...gate, state: "fail", value, samples, why, heals: "never" };
}

function withoutVerdict(unjudged: number): string {
  return `${unjudged} more differed and no fence passed in time to judge them: the mirror is behind, or quarantined keys hold fences back`;
}

function liveSidecars({ sidecars }: Pick<GateFacts, "sidecars">): readonly SidecarSeen[] {
  return sidecars.filter((sidecar) => sidecar.seenMs <= FRESH_MS);
}

function quarantineGate(facts: GateFacts, limits: GateLimits): GateResult {
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

function sidecarsGate({ sidecars, migration }: GateFacts): GateResult {
  const gate = {
    name: "sidecars",
    limit: `all seen within ${span(FRESH_MS)}, at epoch ${migration.epoch}`,
  } as const;
  const blocked = (state: "fail" | "unknown", why: string): GateResult => {
    return {
      ...gate,
      state,
      value: `${ready.length} of ${sidecars.length}`,
      why,
      heals: "by-waiting",
    };
  };
  const ready = sidecars.filter(
    (sidecar) => sidecar.seenMs <= FRESH_MS && sidecar.epoch === migration.epoch,
  );
  if (sidecars.length === 0)
    return blocked("unknown", "no sidecar is registered: traffic would not follow");
  const unseen = sidecars.find((sidecar) => sidecar.seenMs > FRESH_MS);
  if (unseen !== undefined)
    return blocked("fail", `sidecar ${unseen.id} was last seen ${span(unseen.seenMs)} ago`);
  const behind = sidecars.find((sidecar) => sidecar.epoch !== migration.epoch);
  if (behind !== undefined)
    return blocked("fail", `sidecar ${behind.id} is still at epoch ${behind.epoch}`);
  return {
    ...gate,
    state: "pass",
    value: `${ready.length} of ${sidecars.length}`,
    why: "every sidecar follows",
    heals: "never",
  };
}

function reverseGate(facts: GateFacts, limits: GateLimits): GateResult {
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

function approvalsGate(phase: Phase, facts: GateFacts, limits: GateLimits): GateResult {
  const needed = limits.approvals[phase] ?? 0;
  const given = facts.approvals.filter((approval) => approval.phase === phase);
  const names = new Set(given.map(({ name }) => name));
  const said = given.map(({ name, reason }) =>
    reason === undefined ? name : `${name} (${reason})`,
  );
  const gate = { name: "approvals", value: names.size, limit: needed } as const;
  if (names.size >= needed)
    return {
      ...gate,
      state: "pass",
      why: said.length === 0 ? "none is asked for" : `approved by ${said.join(", ")}`,
      heals: "never",
    };
  return {
    ...gate,
    state: "fail",
    why: `${said.length === 0 ? "" : `approved by ${said.join(", ")}; `}\`crossfade approve ${phase} --as NAME --reason TEXT\` records one`,
    heals: "by-waiting",
  };
}

/**
 * Whether what was written on new survives the way back. A finding needs a person's word; where nothing was proved yet the
 * way back stays open (`blocks`): right after a flip it may be needed at once.
 */
function roundTripGate({ roundTrip, roundTripAccepted }: GateFacts): GateResult {
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

/** Whether a verdict stands in the way. Unknown does, but the proof of the round trip: the way back stays open without it. */
export function blocks({ name, state }: Gate): boolean {
  return state === "fail" || (state === "unknown" && name !== "round-trip");
}

function percent(share: number): string {
  return `${Math.round(share * 1e6) / 1e4} %`;
}

/** `lag: 3000 ms (limit 1000 ms): the mirror is behind` */
export function describeGate(gate: Gate): string {
  const limit = gate.limit === null ? "" : ` (limit ${gate.limit})`;
  return `${gate.name}: ${gate.state}, ${gate.value ?? "no value"}${limit}: ${gate.why}`;
}
