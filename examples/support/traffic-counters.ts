import { createHistogram, type RecordableHistogram } from "node:perf_hooks";

/** A request that did not go as it must, or an answer that was older than what its client wrote. */
export interface Incident {
  readonly client: string;
  /** Method and path. */
  readonly request: string;
  readonly why: string;
}

export interface Latency {
  readonly p50_ms: number;
  readonly p99_ms: number;
  readonly max_ms: number;
}

/** What the traffic has seen so far. */
export interface TrafficCounters {
  readonly requests: number;
  /** Unexpected status, network error, time-out. 503 counts. */
  readonly failed: number;
  /** Requests answered by each side, where the answer says so. */
  readonly sides: { readonly old: number; readonly new: number };
  readonly reads: {
    readonly total: number;
    /** Answers (of reads, and of writes themselves) that were compared with what the client wrote before. */
    readonly checked: number;
    /** Those that did not show it: violations of read-your-writes. */
    readonly stale: number;
  };
  readonly writes: {
    readonly total: number;
    readonly acknowledged: number;
    /** Failed writes of which nobody knows whether they were applied; their conversations are left alone from then on. */
    readonly uncertain: number;
  };
  readonly latency: { readonly reads: Latency; readonly writes: Latency };
  /** The first few of each. */
  readonly failures: readonly Incident[];
  readonly stales: readonly Incident[];
}

const KEPT = 10;

/** Counts for all clients of one traffic. */
export class TrafficRecorder {
  readonly #latency = { reads: createHistogram(), writes: createHistogram() };
  readonly #window = createHistogram();
  readonly #sides = { old: 0, new: 0 };
  readonly #failures: Incident[] = [];
  readonly #stales: Incident[] = [];
  #failed = 0;
  #checked = 0;
  #stale = 0;
  #acknowledged = 0;
  #uncertain = 0;

  /** One request was answered, or given up after `ms`. */
  answered(kind: "reads" | "writes", ms: number, side: string | undefined): void {
    const micros = Math.max(1, Math.round(ms * 1000));
    this.#latency[kind].record(micros);
    this.#window.record(micros);
    if (side === "old" || side === "new") this.#sides[side]++;
  }

  failed(incident: Incident): void {
    this.#failed++;
    if (this.#failures.length < KEPT) this.#failures.push(incident);
  }

  acknowledged(): void {
    this.#acknowledged++;
  }

  uncertain(): void {
    this.#uncertain++;
  }

  /** An answer was compared with what the client knows; `stale` if it did not show it. */
  checked(stale?: Incident): void {
    this.#checked++;
    if (stale === undefined) return;
    this.#stale++;
    if (this.#stales.length < KEPT) this.#stales.push(stale);
  }

  /** Latency of all requests since the last call. */
  takeWindow(): Latency {
    const latency = latencyOf(this.#window);
    this.#window.reset();
    return latency;
  }

  snapshot(): TrafficCounters {
    const { reads, writes } = this.#latency;
    return {
      requests: reads.count + writes.count,
      failed: this.#failed,
      sides: { ...this.#sides },
      reads: { total: reads.count, checked: this.#checked, stale: this.#stale },
      writes: { total: writes.count, acknowledged: this.#acknowledged, uncertain: this.#uncertain },
      latency: { reads: latencyOf(reads), writes: latencyOf(writes) },
      failures: [...this.#failures],
      stales: [...this.#stales],
    };
  }
}

function latencyOf(histogram: RecordableHistogram): Latency {
  const ms = (micros: number) => (histogram.count === 0 ? 0 : micros / 1000);
  return {
    p50_ms: ms(histogram.percentile(50)),
    p99_ms: ms(histogram.percentile(99)),
    max_ms: ms(histogram.max),
  };
}
