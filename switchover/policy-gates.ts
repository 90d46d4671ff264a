import { Cron } from "croner";
import type { Phase } from "../config/words.ts";
import { windowKey } from "../store/control/side-reads.ts";
import { compareSides, percent, sumWindows } from "./compare-sides.ts";
import type { GateFacts, GateLimits, GateResult } from "./gate-facts.ts";
import { span } from "./spans.ts";

/** Gates that the plan's policy asks for: stay, window, canary, drill, approvals. Pure. */

/** The phase that a step leaves, and how long it has been there. */
export interface Leaving {
  readonly phase: Phase;
  readonly sinceMs: number;
}

/** Undefined: the plan asks for no stay here. */
export function stayGate(leaving: Leaving, { stayMs }: GateLimits): GateResult | undefined {
  const wanted = stayMs[leaving.phase] ?? 0;
  if (wanted === 0) return undefined;
  const where = leaving.phase === "canary" ? "this step of canary" : leaving.phase;
  const gate = {
    name: "stay",
    value: span(leaving.sinceMs),
    limit: `at least ${span(wanted)}`,
  } as const;
  if (leaving.sinceMs >= wanted)
    return { ...gate, state: "pass", why: `${where} has lasted long enough`, heals: "never" };
  const why = `${where} must last ${span(wanted - leaving.sinceMs)} more`;
  return { ...gate, state: "fail", why, heals: "by-waiting" };
}

/** Undefined: the phase may be entered at any time. */
export function windowGate(
  phase: Phase,
  now: Date,
  { windows }: GateLimits,
): GateResult | undefined {
  const window = windows[phase];
  if (window === undefined) return undefined;
  const cron = new Cron(window.cron, { timezone: window.zone });
  const gate = { name: "window", limit: `${window.cron} (${window.zone})` } as const;
  // Seconds of a five-part pattern are zero: the minute counts.
  const minute = new Date(Math.floor(now.getTime() / 60_000) * 60_000);
  const open = cron.match(minute);
  if (open)
    return {
      ...gate,
      state: "pass",
      value: "open",
      why: `${phase} may be entered now`,
      heals: "never",
    };
  const next = cron.nextRun(now)?.toISOString() ?? "never";
  return {
    ...gate,
    state: "fail",
    value: "closed",
    why: `the window opens at ${next}`,
    heals: "by-waiting",
  };
}

/** New against old since the step began, over the whole fleet. */
export function canaryGate(
  migration: GateFacts["migration"],
  live: GateFacts["sidecars"],
  { canary }: GateLimits,
): GateResult {
  const limit = `${canary.samples} reads of each side, errors +${percent(canary.errors)}, p50 and p99 ${canary.p99}x`;
  const gate = { name: "canary", limit } as const;
  if (canary.samples === 0) {
    const why = "not required: gates.canary.samples is 0";
    return { ...gate, state: "pass", value: null, limit: null, why, heals: "never" };
  }
  const windows = live.map((sidecar) => sidecar.stats.window);
  const sides = sumWindows(windows, windowKey(migration), "reads");
  const verdict = compareSides(sides, canary);
  const heals = verdict.state === "unknown" ? "by-waiting" : "never";
  const why = verdict.state === "unknown" ? verdict.why + readsThatStay(live) : verdict.why;
  return { ...gate, ...verdict, why, samples: sides.new.requests, heals };
}

/** Sidecars that leave reads with old, which explains why new has few; empty if none does. */
function readsThatStay(live: GateFacts["sidecars"]): string {
  const reasons = live.map(({ stats }) => stats.reads?.why ?? "").filter((why) => why !== "");
  const [reason] = reasons;
  if (reason === undefined) return "";
  const hint =
    reason === "other sidecars"
      ? "none knows what a client did at another; proxy.tokens: redis or cookie tells them"
      : reason;
  return `; ${reasons.length} of ${live.length} sidecars leave reads with old: ${hint}`;
}

/** Undefined: the plan asks for no drill. */
export function drillGate(
  { drill, migration }: GateFacts,
  { drillMaxAgeMs }: GateLimits,
): GateResult | undefined {
  if (drillMaxAgeMs === undefined) return undefined;
  const gate = { name: "drill", limit: `good, at most ${span(drillMaxAgeMs)} old` } as const;
  const hint = "`crossfade drill` rehearses the flip under live traffic";
  if (drill === undefined)
    return { ...gate, state: "unknown", value: null, why: `no drill yet; ${hint}`, heals: "never" };
  const { receipt, ageMs } = drill;
  const held =
    receipt.hold_ms === null
      ? ""
      : `, held writes for ${Math.round(receipt.hold_ms.max)} ms at most`;
  const value = `${receipt.ok ? "good" : "undone"} ${span(ageMs)} ago${held}`;
  const blocked = (why: string): GateResult => ({
    ...gate,
    state: "fail",
    value,
    why,
    heals: "never",
  });
  if (!receipt.ok) return blocked(`the last drill was undone: ${receipt.why ?? "no reason given"}`);
  if (receipt.from !== migration.authority)
    return blocked(`the last drill went the other way; ${hint}`);
  if (ageMs > drillMaxAgeMs) return blocked(`the last drill is too old; ${hint}`);
  return { ...gate, state: "pass", value, why: "the flip was rehearsed", heals: "never" };
}

export function approvalsGate(phase: Phase, facts: GateFacts, limits: GateLimits): GateResult {
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
