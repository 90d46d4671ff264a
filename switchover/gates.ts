import type { Phase } from "../config/words.ts";
import {
  backfillGate,
  gapGate,
  lagGate,
  quarantineGate,
  reverseGate,
  roundTripGate,
  verifyGate,
} from "./data-gates.ts";
import type { Gate, GateFacts, GateLimits, GateName, GateResult } from "./gate-facts.ts";
import { approvalsGate, canaryGate, drillGate, stayGate, windowGate } from "./policy-gates.ts";
import type { Leaving } from "./policy-gates.ts";
import { rebuildGate } from "./rebuild-gate.ts";
import { roomGate } from "./room-gate.ts";
import { serverGates } from "./server-gates.ts";
import { liveSidecars, shadowGate, sidecarsGate } from "./sidecar-gates.ts";

/** Gates: pure functions from facts to a verdict with its value, its limit and its reason. Unknown blocks (DESIGN §2.10). */

/** The others depend on more than facts and limits: `gatesInto` alone evaluates them. */
export type PlainGate = Exclude<
  GateName,
  "stay" | "window" | "drill" | "transactions" | "replicas" | "wal" | "disk" | "room" | "rebuild"
>;

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

/** Whether a verdict stands in the way. Unknown does, but the proof of the round trip: the way back stays open without it. */
export function blocks({ name, state }: Gate): boolean {
  return state === "fail" || (state === "unknown" && name !== "round-trip");
}

/** `lag: 3000 ms (limit 1000 ms): the mirror is behind` */
export function describeGate(gate: Gate): string {
  const limit = gate.limit === null ? "" : ` (limit ${gate.limit})`;
  return `${gate.name}: ${gate.state}, ${gate.value ?? "no value"}${limit}: ${gate.why}`;
}
