import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import autocannon from "autocannon";
import { median } from "../bench.ts";
import type { Figures } from "./report.ts";

/** One request of a workload. */
export interface LoadRequest {
  readonly method: NonNullable<autocannon.Request["method"]>;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface Shot {
  readonly url: string;
  readonly connections: number;
  readonly seconds: number;
  /** Requests per second of all connections together; undefined: saturation. */
  readonly rate: number | undefined;
  /** What connection number n sends, round and round. */
  readonly requests: (connection: number) => readonly LoadRequest[];
  /** Ends the shot early. */
  readonly signal: AbortSignal;
}

/** Shares of requests at which the curve has a point: closer together towards the tail, where the news is. */
export const CURVE = [
  0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99,
  0.9925, 0.995, 0.9975, 0.999, 0.9995, 0.9999,
] as const;

/**
 * Collects shots at one address. Latency is kept in microseconds here: autocannon's own histogram counts whole
 * milliseconds, and its correction for coordinated omission takes the interval between two requests for 1 ms at any
 * rate, which makes up answers that nobody got.
 */
export class Target {
  readonly #latency: RecordableHistogram = createHistogram();
  readonly #rates: number[] = [];
  #errors = 0;

  /** Fires one shot and adds what it saw. */
  async shoot(shot: Shot): Promise<void> {
    shot.signal.throwIfAborted();
    let connection = 0;
    let lost = 0;
    let answered = 0;
    const ended = Promise.withResolvers<autocannon.Result>();
    const running = autocannon(
      {
        url: shot.url,
        connections: shot.connections,
        duration: shot.seconds,
        timeout: 10,
        ...(shot.rate === undefined
          ? {}
          : { overallRate: shot.rate, ignoreCoordinatedOmission: true }),
        setupClient(client) {
          client.setRequests(shot.requests(connection).map((request) => ({ ...request })));
          connection += 1;
          onLost(client, (count) => (lost += count));
        },
      },
      (error, result) => (error === null ? ended.resolve(result) : ended.reject(error as Error)),
    );
    running.on("response", (_client, _status, _bytes, ms) => {
      answered += 1;
      this.#latency.record(Math.max(1, Math.round(ms * 1_000)));
    });
    const stop = () => running.stop();
    shot.signal.addEventListener("abort", stop);
    try {
      const result = await ended.promise;
      this.#rates.push(answered / result.duration);
      this.#errors += result.errors + result.non2xx + lost;
    } finally {
      shot.signal.removeEventListener("abort", stop);
    }
    shot.signal.throwIfAborted();
  }

  figures(): Figures {
    const latency = this.#latency;
    const ms = (share: number) =>
      latency.count === 0 ? Number.NaN : latency.percentile(Math.max(1e-3, share * 100)) / 1_000;
    return {
      requests: latency.count,
      errors: this.#errors,
      rounds: this.#rates.map((rate) => Math.round(rate * 10) / 10),
      rate: median(this.#rates),
      p50_ms: ms(0.5),
      p90_ms: ms(0.9),
      p99_ms: ms(0.99),
      p999_ms: ms(0.999),
      max_ms: ms(1),
      curve: CURVE.map((share) => [share, ms(share)] as const),
    };
  }
}

/** autocannon opens a connection that was closed under a request again, and says nothing: the request got no answer. */
function onLost(client: autocannon.Client, add: (count: 1 | -1) => void): void {
  let waiting = false;
  let replaced = false;
  const emitter: NodeJS.EventEmitter = client;
  emitter.on("request", () => {
    replaced = waiting;
    if (replaced) add(1);
    waiting = true;
  });
  emitter.on("response", () => (waiting = replaced = false));
  emitter.on("connError", () => (waiting = replaced = false));
  // Told after the next request went out, and counted by autocannon itself.
  emitter.on("timeout", () => {
    if (replaced) add(-1);
    replaced = false;
  });
}
