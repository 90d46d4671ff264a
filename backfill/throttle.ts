import type { Pace, Waiting } from "../store/control/pace.ts";

/**
 * How fast the copy may go so that the app does not pay for it: it begins slowly, grows by a tenth, and is halved under
 * pressure. Pure: what was measured goes in, the next pace comes out (pacer.ts measures and applies it).
 */

/** Never below: a copy that stands still never ends, and what is slow without it would hold it for ever. */
export const FLOOR = 0.02;
/** Where a copy beside traffic begins: full speed would be felt for as long as it takes to see that. */
const START = 0.1;
const GROWTH = 0.1;
const LEAST_GROWTH = 0.01;
const CUT = 0.5;
/** Ticks until the heartbeats tell what a cut did. Cutting before that would cut for what is over. */
const EFFECT_TICKS = 3;
/** A p99 within this of its baseline is noise, whatever the factor says. More would be felt by an app whose p99 is 2 ms. */
const SLACK_MS = 0.25;
/** Share of the newest sample in the baseline. */
const LEARN = 0.2;

export interface ThrottleLimits {
  /** Factor over the app's usual p99. */
  readonly p99: number | undefined;
  readonly replicaLagMs: number | undefined;
  readonly active: number | undefined;
  /** Bytes of WAL per second. */
  readonly wal: number | undefined;
}

/** A measurement; a text says why there is none. */
export type Measured = number | string | undefined;

export interface Signals {
  /** The app's p99 in ms by kind of request, of kinds with enough of them. */
  readonly p99: Readonly<Record<string, number>>;
  readonly replicaLagMs: Measured;
  readonly active: Measured;
  readonly wal: Measured;
}

/** The pace after one more look. `copying`: whether there is anything to copy now, for any worker of any machine. */
export function nextPace(
  now: Pace,
  signals: Signals,
  limits: ThrottleLimits,
  copying: boolean,
): Pace {
  const measured = limits.p99 === undefined ? undefined : measureFirst(now, signals.p99, copying);
  if (measured !== undefined) return measured;
  const baseline = learn(now, signals.p99, copying);
  const settling = ticked(now.waiting);
  const seen = settling === undefined ? signals : { ...signals, p99: {} };
  const pressure = pressureOf(baseline, seen, limits);
  const share = bounded(pressure === undefined ? grown(now, settling) : now.share * CUT);
  const begun = copying && !now.copying ? startingShare({ ...now, share }, limits) : share;
  return {
    share: begun,
    baseline,
    copying,
    waiting: pressure === undefined ? settling : { for: "effect", ticks: EFFECT_TICKS },
    reason: pressure ?? (settling === undefined ? notes(begun, signals, limits) : now.reason),
  };
}

function grown({ share }: Pace, settling: Waiting | undefined): number {
  return settling === undefined ? share + Math.max(LEAST_GROWTH, share * GROWTH) : share;
}

/** Also against floating point: many small steps do not add up to 1. */
function bounded(share: number): number {
  return Math.round(Math.min(1, Math.max(FLOOR, share)) * 1e4) / 1e4;
}

function ticked(waiting: Waiting | undefined): Waiting | undefined {
  if (waiting === undefined || waiting.ticks <= 1) return undefined;
  return { ...waiting, ticks: waiting.ticks - 1 };
}

/** The share that a copy begins with: what the pace is at rest may be too much for an app with traffic. */
export function startingShare(
  { share, baseline }: Pick<Pace, "share" | "baseline">,
  limits: ThrottleLimits,
): number {
  const isFelt = limits.p99 !== undefined && Object.keys(baseline).length > 0;
  return isFelt ? Math.min(share, START) : share;
}

/** Ticks at the floor before a first baseline: what was seen while copying has then left the window of samples. */
const MEASURE_TICKS = 12;

/** Traffic of a kind whose usual p99 nobody knows, and the copy runs already: it goes to the floor until that is measured. */
function measureFirst(
  now: Pace,
  p99: Readonly<Record<string, number>>,
  copying: boolean,
): Pace | undefined {
  const { baseline, waiting } = now;
  const isMeasuring = waiting?.for === "usual";
  const isKnown = Object.keys(p99).every((kind) => baseline[kind] !== undefined);
  if (!isMeasuring && (isKnown || !copying)) return undefined;
  const left = isMeasuring ? ticked(waiting) : { for: "usual" as const, ticks: MEASURE_TICKS - 1 };
  if (left === undefined)
    return {
      share: FLOOR,
      reason: undefined,
      baseline: { ...p99, ...baseline },
      copying,
      waiting: undefined,
    };
  return {
    share: FLOOR,
    reason: "measuring the app's usual p99 with the copy at rest",
    baseline,
    copying,
    waiting: left,
  };
}

/**
 * The app's usual p99 is learnt while nothing is copied (nor was until now), and at the floor, where the copy takes next to
 * nothing: an app that became slow for another reason then lets the copy go on. A better p99 while copying is learnt at any pace.
 */
function learn(
  now: Pace,
  p99: Readonly<Record<string, number>>,
  copying: boolean,
): Readonly<Record<string, number>> {
  const idle = (!copying && !now.copying) || now.share <= FLOOR;
  const next = { ...now.baseline };
  for (const [kind, ms] of Object.entries(p99)) {
    const known = next[kind];
    if (known === undefined) {
      if (idle) next[kind] = ms;
    } else if (idle || ms < known) next[kind] = known + LEARN * (ms - known);
  }
  return next;
}

/** Why to slow down, or undefined. */
export function pressureOf(
  baseline: Readonly<Record<string, number>>,
  signals: Signals,
  limits: ThrottleLimits,
): string | undefined {
  if (limits.p99 !== undefined) {
    for (const [kind, ms] of Object.entries(signals.p99)) {
      const usual = baseline[kind];
      if (usual === undefined) continue;
      const limit = Math.max(usual * limits.p99, usual + SLACK_MS);
      if (ms > limit)
        return `p99 of ${kind}s ${oneDecimal(ms)} ms > ${oneDecimal(limit)} ms (usual ${oneDecimal(usual)} ms)`;
    }
  }
  if (over(signals.replicaLagMs, limits.replicaLagMs))
    return `replica lag ${oneDecimal(Number(signals.replicaLagMs) / 1_000)} s > ${oneDecimal((limits.replicaLagMs ?? 0) / 1_000)} s`;
  if (over(signals.active, limits.active))
    return `${signals.active} active sessions > ${limits.active}`;
  if (over(signals.wal, limits.wal))
    return `WAL ${megabytes(Number(signals.wal))}/s > ${megabytes(limits.wal ?? 0)}/s`;
  return undefined;
}

function over(value: Measured, limit: number | undefined): boolean {
  return typeof value === "number" && limit !== undefined && value > limit;
}

/** Below full pace without pressure it grows. What is limited but cannot be measured is always said. */
function notes(share: number, signals: Signals, limits: ThrottleLimits): string | undefined {
  const said = [
    ...(share < 1 ? ["no pressure, growing"] : []),
    ...(limits.replicaLagMs === undefined ? [] : unknown("replica lag", signals.replicaLagMs)),
    ...(limits.active === undefined ? [] : unknown("active sessions", signals.active)),
    ...(limits.wal === undefined ? [] : unknown("WAL rate", signals.wal)),
  ];
  return said.length === 0 ? undefined : said.join("; ");
}

function unknown(name: string, value: Measured): string[] {
  return typeof value === "string" ? [`${name} unknown: ${value}`] : [];
}

function oneDecimal(value: number): number {
  return Math.round(value * 10) / 10;
}

function megabytes(bytes: number): string {
  return `${oneDecimal(bytes / 1e6)} MB`;
}

/** How long a worker rests after work that took `ms`, so that it works `share` of its time; at most a few seconds. */
export function restAfter(ms: number, share: number): number {
  return share >= 1 ? 0 : Math.min(10_000, ms / share - ms);
}

/** What `tune` set over the plan. */
export function tunedLimits(
  plan: ThrottleLimits,
  tuned: Readonly<Record<string, number>>,
): ThrottleLimits {
  return {
    p99: tuned["p99"] ?? plan.p99,
    replicaLagMs: tuned["replica_lag"] ?? plan.replicaLagMs,
    active: tuned["active"] ?? plan.active,
    wal: tuned["wal"] ?? plan.wal,
  };
}
