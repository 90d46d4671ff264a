import { SIDES } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import { BUCKETS, bucketOf } from "../store/control/side-reads.ts";
import type { SideCounts, WindowReport } from "../store/control/side-reads.ts";

interface Counter {
  requests: number;
  errors: number;
  readonly buckets: Uint32Array;
}

type BySide = Readonly<Record<Side, Counter>>;

/** Counts both sides under one routing, and begins anew with the next: old and new are compared in the same time. */
export class SideWindow {
  #key = "";
  #reads = bySide();
  #writes = bySide();

  /** The routing that holds from now on; true if it is another. */
  enter(key: string): boolean {
    if (key === this.#key) return false;
    this.#key = key;
    this.#reads = bySide();
    this.#writes = bySide();
    return true;
  }

  record(side: Side, kind: "read" | "write", failed: boolean, ms: number): void {
    const counter = (kind === "read" ? this.#reads : this.#writes)[side];
    const bucket = bucketOf(ms);
    counter.requests += 1;
    if (failed) counter.errors += 1;
    counter.buckets[bucket] = (counter.buckets[bucket] ?? 0) + 1;
  }

  report(): WindowReport {
    return { key: this.#key, reads: reportOf(this.#reads), writes: reportOf(this.#writes) };
  }
}

function bySide(): BySide {
  const counter = () => ({ requests: 0, errors: 0, buckets: new Uint32Array(BUCKETS) });
  return { old: counter(), new: counter() };
}

function reportOf(counters: BySide): Record<Side, SideCounts> {
  const [old, next] = SIDES.map((side): SideCounts => {
    const { requests, errors, buckets } = counters[side];
    const filled: [number, number][] = [];
    for (const [index, count] of buckets.entries()) if (count > 0) filled.push([index, count]);
    return { requests, errors, buckets: filled };
  });
  return { old: old as SideCounts, new: next as SideCounts };
}
