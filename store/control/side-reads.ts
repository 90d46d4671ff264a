import type { Phase, Side } from "../../config/words.ts";

/** What a sidecar has seen of both sides since the routing last changed: what canary and the triggers of a rollback are judged by. */

export interface WindowReport {
  /** The routing it was counted under: `windowKey`. */
  readonly key: string;
  readonly reads: Readonly<Record<Side, SideCounts>>;
  readonly writes: Readonly<Record<Side, SideCounts>>;
}

export interface SideCounts {
  readonly requests: number;
  /** 5xx, or no answer. */
  readonly errors: number;
  /** Latencies as [bucket, count], buckets as `bucketOf` has them; empty ones are left out. */
  readonly buckets: readonly (readonly [number, number])[];
}

export const NO_COUNTS: SideCounts = { requests: 0, errors: 0, buckets: [] };

/** Counts of another routing say nothing about this one. */
export function windowKey(state: {
  readonly phase: Phase;
  readonly epoch: number;
  readonly readsNew: number;
}): string {
  return `${state.epoch} ${state.phase} ${state.readsNew}`;
}

/** Thirty-two buckets for each power of two of a microsecond: a quantile is off by at most 3 %. */
const SUB_BITS = 5;
const SUB = 2 ** SUB_BITS;
export const BUCKETS = 32 * SUB;

/** The bucket of a latency. */
export function bucketOf(ms: number): number {
  const micros = Math.min(ms * 1000, 2 ** 31 - 1) | 0;
  if (micros < SUB) return Math.max(0, micros);
  const exponent = 31 - Math.clz32(micros);
  return (exponent - SUB_BITS + 1) * SUB + ((micros >> (exponent - SUB_BITS)) & (SUB - 1));
}

/** The largest latency of a bucket, ms. */
export function bucketMs(index: number): number {
  if (index < SUB) return (index + 1) / 1000;
  const exponent = Math.floor(index / SUB) + SUB_BITS - 1;
  return ((SUB + (index % SUB) + 1) * 2 ** (exponent - SUB_BITS)) / 1000;
}
