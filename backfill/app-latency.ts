import type { SidecarSeen } from "../store/control/sidecars.ts";

/** Heartbeats of a sidecar that count together. */
const WINDOW = 5;
/** Fewer requests say nothing about a p99. */
const MIN_REQUESTS = 50;
const FRESH_MS = 5_000;

interface Sample {
  /** Requests counted since the sidecar's start: tells a new heartbeat from one that was read already. */
  readonly seen: number;
  readonly count: number;
  readonly p99: number;
}

/** The app's p99 as the sidecars see it, over their last heartbeats, by kind of request. Both sides' answers count. */
export class AppLatency {
  readonly #samples = new Map<string, Sample[]>();
  readonly #beatMs: number;
  /** Heartbeats from before then do not count. */
  #since = Number.NEGATIVE_INFINITY;

  /** `beatMs`: what a heartbeat tells of is not longer ago. */
  constructor(beatMs: number) {
    this.#beatMs = beatMs;
  }

  /** Forgets all that was seen; the next heartbeats that count tell only of what comes now. */
  beginAnew(): void {
    this.#samples.clear();
    this.#since = performance.now() + this.#beatMs;
  }

  /** Takes in what the sidecars have reported; the same report twice counts once. */
  add(sidecars: readonly SidecarSeen[]): void {
    const live = sidecars.filter((sidecar) => sidecar.seenMs <= FRESH_MS);
    const names = new Set<string>();
    for (const { id, stats, seenMs } of live) {
      if (performance.now() - seenMs < this.#since) continue;
      for (const { side, kind, requests, recent } of stats.traffic ?? []) {
        if (kind === "stream") continue;
        const name = `${kind} ${side} ${id}`;
        names.add(name);
        const samples = this.#samples.get(name) ?? [];
        if (samples.at(-1)?.seen === requests || recent.count === 0) continue;
        samples.push({ seen: requests, count: recent.count, p99: recent.p99 });
        this.#samples.set(name, samples.slice(-WINDOW));
      }
    }
    for (const name of this.#samples.keys()) if (!names.has(name)) this.#samples.delete(name);
  }

  /** Percentiles cannot be added up: the mean of the heartbeats' p99, each by its requests. Used for baseline and now alike. */
  p99(): Record<string, number> {
    const sums = new Map<string, { count: number; weighted: number }>();
    for (const [name, samples] of this.#samples) {
      const kind = name.slice(0, name.indexOf(" "));
      const sum = sums.get(kind) ?? { count: 0, weighted: 0 };
      for (const { count, p99 } of samples) {
        sum.count += count;
        sum.weighted += count * p99;
      }
      sums.set(kind, sum);
    }
    return Object.fromEntries(
      [...sums]
        .filter(([, { count }]) => count >= MIN_REQUESTS)
        .map(([kind, { count, weighted }]) => [kind, weighted / count]),
    );
  }
}
