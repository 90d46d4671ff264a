import type { ReplicaLimits, ServerLimits } from "../config/server-limits.ts";
import { SIDES } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import type { ServerHealth } from "../store/postgres/server-health.ts";
import type { GateResult } from "./gate-facts.ts";
import { size, span } from "./spans.ts";

/** Gates of the plan over both database servers: long transactions, standbys, WAL that slots keep, size. Pure. */

/** A text says why a server could not be asked. */
export type Servers = Readonly<Record<Side, ServerHealth | string>>;

type Verdict = Pick<GateResult, "state" | "value" | "why"> & { readonly samples?: number };

/** The gates that the plan asks for, in any phase. `servers` undefined: nobody asked them. */
export function serverGates(servers: Servers | undefined, limits: ServerLimits): GateResult[] {
  const { transactionMs, replicas, walBytes, diskBytes } = limits;
  const gates: GateResult[] = [];
  if (transactionMs !== undefined) {
    const verdict = worst(servers, (side, health) => transactions(side, health, transactionMs));
    const limit = `none older than ${span(transactionMs)}`;
    gates.push({ name: "transactions", limit, heals: "by-waiting", ...verdict });
  }
  if (replicas !== undefined) {
    const limit = `all within ${span(replicas.lagMs)}${replicas.old + replicas.new > 0 ? `, at least ${replicas.old} of old and ${replicas.new} of new` : ""}`;
    gates.push({ name: "replicas", limit, heals: "by-waiting", ...standbys(servers, replicas) });
  }
  if (walBytes !== undefined) {
    const verdict = worst(servers, (side, health) => retained(side, health, walBytes));
    const limit = `at most ${size(walBytes)} for one slot`;
    gates.push({ name: "wal", limit, heals: "by-waiting", ...verdict });
  }
  if (diskBytes !== undefined) {
    const verdict = worst(servers, (side, health) => stored(side, health, diskBytes));
    gates.push({ name: "disk", limit: `at most ${size(diskBytes)}`, heals: "never", ...verdict });
  }
  return gates;
}

/** Of two servers the one that says no counts, then the one that says nothing; if both are well, both are said. */
function worst(
  servers: Servers | undefined,
  judge: (side: Side, health: ServerHealth) => Verdict,
): Verdict {
  const verdicts = SIDES.map((side): Verdict => {
    const health = servers?.[side] ?? "it was not asked";
    if (typeof health !== "string") return judge(side, health);
    return { state: "unknown", value: null, why: `${side} database: ${health}` };
  });
  const blocking =
    verdicts.find(({ state }) => state === "fail") ??
    verdicts.find(({ state }) => state === "unknown");
  if (blocking !== undefined) return blocking;
  const said = (of: "value" | "why") => [...new Set(verdicts.map((verdict) => verdict[of]))];
  return {
    state: "pass",
    value: said("value").join(", "),
    why: said("why").join("; "),
    samples: verdicts.reduce((sum, { samples = 0 }) => sum + samples, 0),
  };
}

function transactions(side: Side, { transactions: found }: ServerHealth, limitMs: number): Verdict {
  if (typeof found === "string")
    return { state: "unknown", value: null, why: `${side} database: ${found}` };
  const { oldest, open: samples } = found;
  const value = `${side} ${oldest === undefined ? "none open" : span(oldest.ageMs)}`;
  if (oldest === undefined || oldest.ageMs <= limitMs)
    return { state: "pass", value, samples, why: "no transaction is open for too long" };
  const why = `${oldest.who}; wait for it, or end it on ${side} with \`${oldest.end}\``;
  return { state: "fail", value, samples, why };
}

/** What is gone is not seen: who wants a missing standby to be noticed says how many there must be. */
function standbys(servers: Servers | undefined, limits: ReplicaLimits): Verdict {
  const verdict = worst(servers, (side, health) => standbysOf(side, health, limits));
  if (verdict.state !== "pass" || verdict.samples !== 0) return verdict;
  const why =
    "no standby is connected to either database, so nothing is known of any (some hosting providers do not show theirs); take gates.replicas out if there is none";
  return { ...verdict, state: "unknown", why };
}

function standbysOf(side: Side, { replicas }: ServerHealth, limits: ReplicaLimits): Verdict {
  if (typeof replicas === "string")
    return { state: "unknown", value: null, why: `${side} database: ${replicas}` };
  const samples = replicas.length;
  const lag = Math.max(0, ...replicas.map(({ lagMs }) => lagMs ?? 0));
  const value = `${side} ${samples} connected${samples === 0 ? "" : `, ${span(lag)} behind`}`;
  const needed = limits[side];
  if (samples < needed) {
    const why = `${side} has ${samples} standbys connected, not ${needed}: one is down or cut off`;
    return { state: "fail", value, samples, why };
  }
  const slow = replicas.find(({ lagMs }) => lagMs !== null && lagMs > limits.lagMs);
  if (slow !== undefined)
    return { state: "fail", value, samples, why: `standby ${slow.name} of ${side} is behind` };
  const other = replicas.find(({ state, lagMs }) => state !== "streaming" || lagMs === null);
  if (other !== undefined) {
    const why = `how far standby ${other.name} of ${side} is behind is not known (${other.state})`;
    return { state: "unknown", value, samples, why };
  }
  return { state: "pass", value, samples, why: "every standby keeps up" };
}

function retained(side: Side, { slots }: ServerHealth, limit: number): Verdict {
  const samples = slots.length;
  const most = slots.toSorted((a, b) => b.bytes - a.bytes)[0];
  const value = `${side} ${size(most?.bytes ?? 0)}`;
  const lost = slots.find((slot) => slot.lost);
  if (lost !== undefined) {
    const why = `the ${side} server removes WAL that slot ${lost.name} needs: its reader has to begin anew`;
    return { state: "fail", value, samples, why };
  }
  if (most === undefined || most.bytes <= limit)
    return { state: "pass", value, samples, why: "no slot keeps too much WAL" };
  const reader = most.active ? "its reader is behind" : "nobody reads it";
  return { state: "fail", value, samples, why: `slot ${most.name} of ${side}: ${reader}` };
}

function stored(side: Side, { databaseBytes }: ServerHealth, limit: number): Verdict {
  const value = `${side} ${size(databaseBytes)}`;
  if (databaseBytes <= limit)
    return { state: "pass", value, samples: 1, why: "neither database is too large" };
  const why = `the ${side} database has grown beyond it: make room, then raise gates.disk`;
  return { state: "fail", value, samples: 1, why };
}
