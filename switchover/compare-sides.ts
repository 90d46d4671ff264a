import { SIDES } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import { NO_COUNTS, bucketMs } from "../store/control/side-reads.ts";
import type { SideCounts, WindowReport } from "../store/control/side-reads.ts";

/** Both sides in the same window, and whether new is worse than chance explains. Pure. */

export type BySide = Readonly<Record<Side, SideCounts>>;

export interface CompareLimits {
  readonly samples: number;
  /** How much larger new's share of errors may be. */
  readonly errors: number;
  /** Factor over old's p50 and p99 that new's may reach. */
  readonly p99: number;
}

export type Verdict = {
  readonly state: "pass" | "fail" | "unknown";
  readonly value: string;
  readonly why: string;
};

/** One-sided, 99 %: of a hundred good steps one may be asked to wait for more reads, none is judged by a single slow one. */
const Z = 2.326;
/** Differences below this are nobody's concern, whatever their factor. */
const SLACK_MS = 5;

/** Adds what several sidecars counted. */
export function sumCounts(counts: readonly SideCounts[]): SideCounts {
  const buckets = new Map<number, number>();
  for (const each of counts)
    for (const [index, count] of each.buckets)
      buckets.set(index, (buckets.get(index) ?? 0) + count);
  return {
    requests: counts.reduce((sum, each) => sum + each.requests, 0),
    errors: counts.reduce((sum, each) => sum + each.errors, 0),
    buckets: [...buckets].toSorted(([a], [b]) => a - b),
  };
}

/** Of all sidecars that counted under this routing. */
export function sumWindows(
  windows: readonly (WindowReport | undefined)[],
  key: string,
  kind: "reads" | "writes",
): BySide {
  const counted = windows.filter((window) => window?.key === key);
  const [old = NO_COUNTS, next = NO_COUNTS] = SIDES.map((side) =>
    sumCounts(counted.map((window) => window?.[kind][side] ?? NO_COUNTS)),
  );
  return { old, new: next };
}

/** Whether new answers as well as old. Between the limit and what chance explains lies `unknown`: more reads will tell. */
export function compareSides(sides: BySide, limits: CompareLimits): Verdict {
  const { old, new: next } = sides;
  const value = describe(sides);
  if (next.requests < limits.samples || old.requests < limits.samples) {
    const few = next.requests < limits.samples ? "new" : "old";
    const why = `${few} has answered ${sides[few].requests} reads in this step; ${limits.samples} of each side are needed to say`;
    return { state: "unknown", value, why };
  }
  const verdicts = [
    errorsVerdict(old, next, limits.errors),
    quantileVerdict(0.5, old, next, limits.p99),
    quantileVerdict(0.99, old, next, limits.p99),
  ];
  for (const state of ["fail", "unknown"] as const) {
    const found = verdicts.find((verdict) => verdict.state === state);
    if (found !== undefined) return { ...found, value };
  }
  return { state: "pass", value, why: "new answers as well as old" };
}

type Part = Pick<Verdict, "state" | "why">;

/** Two proportions; one success and one failure are added to each side, so that none is ever certain (Agresti and Caffo). */
function errorsVerdict(old: SideCounts, next: SideCounts, limit: number): Part {
  const share = ({ errors, requests }: SideCounts) => errors / requests;
  const more = share(next) - share(old);
  if (more <= limit) return { state: "pass", why: "" };
  const adjusted = ({ errors, requests }: SideCounts) => {
    const n = requests + 2;
    const p = (errors + 1) / n;
    return { p, variance: (p * (1 - p)) / n };
  };
  const [a, b] = [adjusted(old), adjusted(next)];
  const z = (b.p - a.p - limit) / Math.sqrt(a.variance + b.variance);
  const what = `new fails ${percent(share(next))} of reads, old ${percent(share(old))}`;
  if (z > Z) return { state: "fail", why: `${what}: more than chance explains` };
  return { state: "unknown", why: `${what}: that may be chance, more reads will tell` };
}

/** Whether even the lowest quantile of new that chance allows is above the highest one of old, times the factor. */
function quantileVerdict(q: number, old: SideCounts, next: SideCounts, factor: number): Part {
  const name = `p${Math.round(q * 100)}`;
  const [was, is] = [quantile(old, q), quantile(next, q)];
  if (is <= was * factor || is - was <= SLACK_MS) return { state: "pass", why: "" };
  const what = `new's ${name} is ${ms(is)}, old's ${ms(was)}`;
  const limit = quantile(old, q, Z) * factor;
  const least = quantile(next, q, -Z);
  if (least > limit && least - limit > SLACK_MS)
    return { state: "fail", why: `${what}: more than chance explains` };
  return { state: "unknown", why: `${what}: that may be chance, more reads will tell` };
}

/**
 * A quantile, or its confidence bound by order statistics: that many standard deviations away. Where there are too few requests for
 * a bound it is 0 or infinite; the slowest one alone is none from below. NaN without requests.
 */
export function quantile({ requests, buckets }: SideCounts, q: number, deviations = 0): number {
  const rank = Math.ceil(requests * q + deviations * Math.sqrt(requests * q * (1 - q)));
  if (deviations > 0 && rank > requests) return Number.POSITIVE_INFINITY;
  const most = deviations < 0 ? requests - 1 : requests;
  if (deviations < 0 && Math.min(rank, most) < 1) return 0;
  let left = Math.min(most, Math.max(1, rank));
  for (const [index, count] of buckets) {
    left -= count;
    if (left <= 0) return bucketMs(index);
  }
  return Number.NaN;
}

function describe({ old, new: next }: BySide): string {
  const one = (side: SideCounts) =>
    side.requests === 0
      ? "no reads"
      : `${percent(side.errors / side.requests)} errors, p50 ${ms(quantile(side, 0.5))}, p99 ${ms(quantile(side, 0.99))}`;
  return `new ${one(next)}; old ${one(old)}`;
}

/** `0.25 %` */
export function percent(share: number): string {
  return `${Math.round(share * 1e4) / 1e2} %`;
}

function ms(value: number): string {
  return `${Math.round(value * 10) / 10} ms`;
}
