import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "undici";
import { Random } from "./random.ts";
import { type Expected, TrafficClient } from "./traffic-client.ts";
import { type Latency, type TrafficCounters, TrafficRecorder } from "./traffic-counters.ts";

export interface TrafficOptions {
  /** The service as its clients know it: an app or the sidecar. */
  readonly baseUrl: string;
  /** Users of the service; at least as many as clients. Nobody else may write their conversations meanwhile. */
  readonly users: readonly string[];
  /** 8 by default. */
  readonly clients?: number;
  /** Requests of all clients together; 250 by default. */
  readonly ratePerSecond?: number;
  readonly seed?: number;
}

export interface Traffic {
  /** What was seen up to now. */
  readonly counters: TrafficCounters;
  /** Latency since the last call: what a live display shows. */
  takeWindow(): Latency;
  /**
   * What every conversation written so far must look like, in both schemas once all is mirrored. While the traffic runs,
   * this is out of date as soon as it is read: `pause()` first.
   */
  expected(): Map<string, Expected>;
  /** Resolves when no request is under way; none is sent until `resume()`. */
  pause(): Promise<void>;
  resume(): void;
  /** Resolves when no request is under way and none will be. */
  stop(): Promise<void>;
}

/** A stall longer than this is not made up for by a burst. */
const CATCH_UP_MS = 1_000;

/**
 * Keeps realistic traffic on the ColonyCraft API: clients with an identity each, seven reads to three writes (create,
 * update, re-categorise, delete), every write read back at once and every answer compared with what its client knows.
 */
export function startTraffic(options: TrafficOptions): Traffic {
  const { baseUrl, users, clients: count = 8, ratePerSecond = 250, seed = 1 } = options;
  if (users.length < count)
    throw new Error(`${count} clients need at least as many users, not ${users.length}`);
  const recorder = new TrafficRecorder();
  const pool = new Pool(baseUrl, {
    connections: count,
    headersTimeout: 30_000,
    bodyTimeout: 30_000,
  });
  const own = (index: number) => users.filter((_, i) => i % count === index);
  const clients = Array.from(
    { length: count },
    (_, index) =>
      new TrafficClient({
        name: `client-${seed}-${index}`,
        pool,
        random: new Random(seed * 1_000_003 + index),
        recorder,
        users: own(index),
        others: count === 1 ? [] : own((index + 1) % count),
      }),
  );
  const pace = new Pace((count * 1000) / ratePerSecond);
  const loops = clients.map((client, index) => pace.run(client, index / count));
  // A loop that fails is a bug of the traffic itself: `stop()` tells it.
  for (const loop of loops) loop.catch(() => undefined);
  let stopping: Promise<void> | undefined;
  const stop = async () => {
    pace.stop();
    try {
      await Promise.all(loops);
    } finally {
      await pool.close();
    }
  };
  return {
    get counters() {
      return recorder.snapshot();
    },
    takeWindow: () => recorder.takeWindow(),
    expected: () => new Map(clients.flatMap((client) => [...client.expected])),
    pause: () => pace.pause(),
    resume: () => pace.resume(),
    stop: () => (stopping ??= stop()),
  };
}

/** Fixed-rate scheduling: a request is due every `interval` per client, however long the one before took. */
class Pace {
  readonly #interval: number;
  readonly #abort = new AbortController();
  readonly #underWay = new Set<Promise<number>>();
  #gate: PromiseWithResolvers<void> | undefined;

  constructor(interval: number) {
    this.#interval = interval;
  }

  async run(client: TrafficClient, offset: number): Promise<void> {
    const { signal } = this.#abort;
    let due = performance.now() + offset * this.#interval;
    for (;;) {
      await sleep(Math.max(0, due - performance.now()), undefined, { signal }).catch(
        () => undefined,
      );
      while (this.#gate !== undefined) {
        await this.#gate.promise;
        due = performance.now();
      }
      if (signal.aborted) return;
      due += (await this.#count(client.step())) * this.#interval;
      due = Math.max(due, performance.now() - CATCH_UP_MS);
    }
  }

  async pause(): Promise<void> {
    this.#gate ??= Promise.withResolvers<void>();
    await Promise.allSettled(this.#underWay);
  }

  resume(): void {
    this.#gate?.resolve();
    this.#gate = undefined;
  }

  stop(): void {
    this.#abort.abort();
    this.resume();
  }

  /** Lets `pause` wait for a step. */
  async #count(step: Promise<number>): Promise<number> {
    this.#underWay.add(step);
    try {
      return await step;
    } finally {
      this.#underWay.delete(step);
    }
  }
}
