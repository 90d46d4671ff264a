import type { LatencyStats } from "./stats-types.ts";

/** Eight buckets for each power of two of a microsecond: a percentile is off by at most an eighth. */
const SUB_BITS = 3;
const SUB = 2 ** SUB_BITS;
const BUCKETS = 32 * SUB;

/** A histogram that costs a few additions to record into. */
export class LatencyHistogram {
  readonly #counts = new Uint32Array(BUCKETS);
  #count = 0;
  #max = 0;

  record(ms: number): void {
    const index = bucketIndex(Math.min(ms * 1000, 2 ** 31 - 1) | 0);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#count += 1;
    if (ms > this.#max) this.#max = ms;
  }

  summary(): LatencyStats {
    return {
      count: this.#count,
      p50: this.#percentile(0.5),
      p90: this.#percentile(0.9),
      p99: this.#percentile(0.99),
      max: round(this.#max),
    };
  }

  reset(): void {
    this.#counts.fill(0);
    this.#count = 0;
    this.#max = 0;
  }

  #percentile(share: number): number {
    if (this.#count === 0) return 0;
    let left = Math.ceil(this.#count * share);
    for (let index = 0; index < BUCKETS; index++) {
      left -= this.#counts[index] ?? 0;
      if (left <= 0) return round(Math.min(upperBound(index) / 1000, this.#max));
    }
    return round(this.#max);
  }
}

function bucketIndex(micros: number): number {
  if (micros < SUB) return Math.max(0, micros);
  const exponent = 31 - Math.clz32(micros);
  return (exponent - SUB_BITS + 1) * SUB + ((micros >> (exponent - SUB_BITS)) & (SUB - 1));
}

function upperBound(index: number): number {
  if (index < SUB) return index + 1;
  const exponent = Math.floor(index / SUB) + SUB_BITS - 1;
  return (SUB + (index % SUB) + 1) * 2 ** (exponent - SUB_BITS);
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
