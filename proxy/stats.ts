import { ROUTE_KINDS, SIDES } from "../config/words.ts";
import type { RouteKind, Side } from "../config/words.ts";
import type { HoldRecorder } from "./hold.ts";
import { RequestMetrics } from "./request-metrics.ts";
import { LatencyHistogram } from "./latency.ts";
import { SideWindow } from "./side-window.ts";
import type { HeldStats, TrafficStats } from "./stats-types.ts";

const MAX_DURATIONS = 10_000;

interface Counter {
  requests: number;
  errors: number;
  readonly latency: LatencyHistogram;
  readonly recent: LatencyHistogram;
}

export interface RecordedRequest {
  readonly side: Side;
  readonly kind: RouteKind;
  readonly route: string;
}

/** Counts what passes, by side and kind. */
export class TrafficRecorder {
  readonly #counters = Object.fromEntries(
    SIDES.map((side) => [
      side,
      Object.fromEntries(ROUTE_KINDS.map((kind) => [kind, newCounter()])),
    ]),
  ) as Record<Side, Record<RouteKind, Counter>>;
  fallbacks = 0;
  readonly window = new SideWindow();
  readonly requests = new RequestMetrics();

  record(on: RecordedRequest, status: number, failed: boolean, ms: number): void {
    const { side, kind } = on;
    this.requests.record(on, status, ms);
    const counter = this.#counters[side][kind];
    counter.requests += 1;
    if (failed) counter.errors += 1;
    counter.latency.record(ms);
    counter.recent.record(ms);
    if (kind !== "stream") this.window.record(side, kind, failed, ms);
  }

  /** A request failed on this side before another answered it. */
  recordFallback(on: RecordedRequest, status: number, ms: number): void {
    this.fallbacks += 1;
    this.record(on, status, true, ms);
  }

  summary(): TrafficStats[] {
    return SIDES.flatMap((side) =>
      ROUTE_KINDS.map((kind) => {
        const counter = this.#counters[side][kind];
        return {
          side,
          kind,
          requests: counter.requests,
          errors: counter.errors,
          latency: counter.latency.summary(),
          recent: counter.recent.summary(),
        };
      }),
    );
  }

  /** Begins a new interval for the `recent` latencies. */
  nextInterval(): void {
    for (const side of SIDES) {
      for (const kind of ROUTE_KINDS) this.#counters[side][kind].recent.reset();
    }
  }
}

function newCounter(): Counter {
  return {
    requests: 0,
    errors: 0,
    latency: new LatencyHistogram(),
    recent: new LatencyHistogram(),
  };
}

/** An answer to a released write that takes longer than this is not waited for with the report. */
const LATE_MS = 1_000;

/**
 * What the newest attempt held here: the controller makes the receipt of it. So it is reported when it is whole: the hold is
 * over, and the writes it held are answered.
 */
export class HeldRecorder implements HoldRecorder {
  readonly #onNews: () => void;
  #now = newHeld(null);
  #reported = newHeld(null);
  /** Released, and not answered yet. */
  #unanswered = 0;
  #late: NodeJS.Timeout | undefined;
  #writes = 0;
  #waitedMs = 0;

  constructor(onNews: () => void) {
    this.#onNews = onNews;
  }

  began(attempt: number): void {
    if (attempt === this.#now.attempt) return;
    clearTimeout(this.#late);
    this.#now = newHeld(attempt);
    this.#unanswered = 0;
  }

  ended(attempt: number): void {
    if (attempt !== this.#now.attempt) return;
    if (this.#unanswered === 0) {
      this.#report();
      return;
    }
    this.#late = setTimeout(() => this.#report(), LATE_MS);
    // Before it is acknowledged that nothing is held any more: whoever asks then must know that the report is still to come.
    this.#onNews();
  }

  held(attempt: number): void {
    this.#writes += 1;
    if (attempt === this.#now.attempt) this.#now.writes += 1;
  }

  released(attempt: number, ms: number): void {
    this.#waitedMs += ms;
    if (attempt !== this.#now.attempt) return;
    this.#waited(ms);
    this.#unanswered += 1;
  }

  refused(attempt: number, ms: number): void {
    this.#waitedMs += ms;
    if (attempt !== this.#now.attempt) return;
    this.#waited(ms);
    this.#now.failed += 1;
  }

  left(attempt: number): void {
    if (attempt === this.#now.attempt) this.#now.left += 1;
  }

  /** A write that was released has ended. */
  answered(attempt: number, failed: boolean): void {
    if (attempt !== this.#now.attempt) return;
    if (failed) this.#now.failed += 1;
    this.#unanswered -= 1;
    if (this.#unanswered === 0 && this.#late !== undefined) this.#report();
  }

  summary(now: number): HeldStats {
    const { attempt, writes, failed, left, durations, max } = this.#reported;
    return {
      now,
      total: this.#writes,
      total_seconds: this.#waitedMs / 1_000,
      pending: this.#now === this.#reported ? null : this.#now.attempt,
      attempt,
      writes,
      failed,
      left,
      durations_ms: durations,
      max_ms: round(max),
    };
  }

  stop(): void {
    clearTimeout(this.#late);
  }

  #waited(ms: number): void {
    this.#now.max = Math.max(this.#now.max, ms);
    if (this.#now.durations.length < MAX_DURATIONS) this.#now.durations.push(round(ms));
  }

  #report(): void {
    clearTimeout(this.#late);
    this.#late = undefined;
    // The same object: what is answered later still counts.
    this.#reported = this.#now;
    this.#onNews();
  }
}

interface Held {
  readonly attempt: number | null;
  writes: number;
  failed: number;
  left: number;
  max: number;
  readonly durations: number[];
}

function newHeld(attempt: number | null): Held {
  return { attempt, writes: 0, failed: 0, left: 0, max: 0, durations: [] };
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
