/**
 * How fast the copy may go so that the app does not pay for it: additive increase, multiplicative decrease. Pure: what
 * was measured goes in, the next pace comes out (pacer.ts measures and applies it).
 */

/** Never below: a copy that stands still never ends, and what is slow without it would hold it for ever. */
export const FLOOR = 0.02;
const STEP_UP = 0.05;
const CUT = 0.5;
/** A p99 within this of its baseline is noise, whatever the factor says. */
const SLACK_MS = 1;
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

export interface Paced {
  readonly share: number;
  readonly reason: string | undefined;
  readonly baseline: Readonly<Record<string, number>>;
}

/** The pace after one more look. `copying`: whether any worker of any machine copies at the moment. */
export function nextPace(
  now: Paced,
  signals: Signals,
  limits: ThrottleLimits,
  copying: boolean,
): Paced {
  const measured = limits.p99 === undefined ? undefined : measureFirst(now, signals.p99, copying);
  if (measured !== undefined) return measured;
  const baseline = learn(now, signals.p99, copying);
  const pressure = pressureOf(baseline, signals, limits);
  const share = pressure === undefined ? Math.min(1, now.share + STEP_UP) : now.share * CUT;
  // Floating point: 0.05 twenty times is not quite 1.
  const bounded = Math.round(Math.max(FLOOR, share) * 1e4) / 1e4;
  return { share: bounded, baseline, reason: pressure ?? notes(bounded, signals, limits) };
}

/** Ticks at the floor before a first baseline: what was seen while copying has then left the window of samples. */
const MEASURE_TICKS = 12;
/** Stands beside the kinds in `baseline` while a first one is measured: ticks left. */
const MEASURING = "measuring";

/** Traffic of a kind whose usual p99 nobody knows, and the copy runs already: it goes to the floor until that is measured. */
function measureFirst(
  now: Paced,
  p99: Readonly<Record<string, number>>,
  copying: boolean,
): Paced | undefined {
  const { [MEASURING]: left, ...known } = now.baseline;
  if (left === undefined) {
    const unknown = Object.keys(p99).filter((kind) => known[kind] === undefined);
    if (unknown.length === 0 || !copying) return undefined;
  }
  const ticks = left ?? MEASURE_TICKS;
  if (ticks <= 1) return { share: FLOOR, reason: undefined, baseline: { ...p99, ...known } };
  return {
    share: FLOOR,
    reason: "measuring the app's usual p99 with the copy at rest",
    baseline: { ...known, [MEASURING]: ticks - 1 },
  };
}

/**
 * The app's usual p99 is learnt while nothing is copied, and at the floor, where the copy takes next to nothing: an app that
 * became slow for another reason then lets the copy go on. A better p99 while copying is learnt at any pace.
 */
function learn(
  now: Paced,
  p99: Readonly<Record<string, number>>,
  copying: boolean,
): Readonly<Record<string, number>> {
  const idle = !copying || now.share <= FLOOR;
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

/** Below full pace without pressure: it grows again. What is limited but cannot be measured is always said. */
function notes(share: number, signals: Signals, limits: ThrottleLimits): string | undefined {
  const said = [
    ...(share < 1 ? [`the pressure is gone, back at ${Math.round(share * 100)} %`] : []),
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
