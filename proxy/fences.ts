import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../config/lifecycle.ts";
import { messageOf } from "../config/errors.ts";
import type { Side } from "../config/words.ts";
import type { FenceWriter, Passed, Token } from "./ports.ts";
import type { Standing } from "./route.ts";

/** Trace contexts that travel with one fence: it is one row. */
const MOST_TRACES = 100;

/** What a fence is held against. */
export interface FenceView {
  /** The epoch this sidecar routes by. */
  readonly epoch: number;
  readonly passed: Passed;
}

/** A fence that was asked for. It is written by a statement that starts after it was asked for. */
export class Fence {
  readonly side: Side;
  /** The epoch the sidecar routed by when it asked. */
  readonly epoch: number;
  readonly askedAt: number;
  /** Trace contexts of those who asked. */
  readonly traces: string[] = [];
  #token: Token | undefined;
  #waiting: ((token: Token) => void)[] = [];

  constructor(side: Side, epoch: number) {
    this.side = side;
    this.epoch = epoch;
    this.askedAt = performance.now();
  }

  /** undefined while it is not written. */
  get token(): Token | undefined {
    return this.#token;
  }

  settle(token: Token): void {
    this.#token = token;
    for (const call of this.#waiting.splice(0)) call(token);
  }

  /** Calls back when it is written; never for one of an epoch that ends before. */
  whenWritten(call: (token: Token) => void): void {
    const token = this.#token;
    if (token !== undefined) call(token);
    else this.#waiting.push(call);
  }

  /** Resolves once it is written, or after `ms`. */
  async written(ms: number): Promise<void> {
    if (this.#token !== undefined) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** Where it stands: DESIGN §4: an older epoch has passed, a newer one follows the token's side. */
  standing(view: FenceView): Standing {
    const epoch = Math.max(view.epoch, view.passed.epoch);
    const token = this.#token;
    // A side is closed before the epoch moves on, and all it logged has passed by then: written or not, this one too.
    if ((token?.epoch ?? this.epoch) < epoch) return "passed";
    if (token === undefined) return "unpassed";
    if (token.epoch === view.passed.epoch && token.fence <= view.passed.fence) return "passed";
    if (token.epoch > view.epoch) return { newer: token.side };
    return token.fence === 0n ? "passed" : "unpassed";
  }
}

export interface FenceLineOptions {
  readonly writer: FenceWriter;
  readonly log: Log;
  /** A fence of an epoch that is over need not be written any more. */
  readonly isOver: (fence: Fence) => boolean;
  /** How long a fence that nobody waits for may be put off, to share it with others. */
  readonly lazyMs?: number;
}

/**
 * The coalescer: one fence write in flight. Whoever asks while one is in flight shares the next one, because the one in
 * flight may have read its place in the log before the asker's write was committed.
 */
export class FenceLine {
  readonly #options: Required<FenceLineOptions>;
  #queued: Fence | undefined;
  /** Asked for, but an attempt to write them failed: the next fence written covers them too. */
  #overdue: Fence[] = [];
  #urgent = false;
  /** Ends the wait for others to share a fence with. */
  #hurry: (() => void) | undefined;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #failures = 0;

  constructor(options: FenceLineOptions) {
    this.#options = { lazyMs: 5, ...options };
  }

  /** The next fence to be written to `side`. `urgent`: a response waits for it. */
  next(side: Side, epoch: number, urgent: boolean, trace?: string): Fence {
    let fence = this.#queued;
    if (fence === undefined || fence.epoch !== epoch || fence.side !== side) {
      fence = new Fence(side, epoch);
      this.#queued = fence;
    }
    if (trace !== undefined) fence.traces.push(trace);
    if (urgent) {
      this.#urgent = true;
      this.#hurry?.();
    }
    // An idle line begins to write an urgent fence right here: then it is not queued any more.
    if (!this.#stop.signal.aborted) this.#running ??= this.#run();
    return fence;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted && (this.#queued !== undefined || this.#overdue.length > 0)) {
      if (!this.#urgent) await this.#gather();
      await this.#writeNext();
    }
    this.#running = undefined;
  }

  async #writeNext(): Promise<void> {
    const fences = [...this.#overdue, ...(this.#queued === undefined ? [] : [this.#queued])];
    this.#overdue = [];
    this.#queued = undefined;
    this.#urgent = false;
    const due = fences.filter((fence) => !this.#options.isOver(fence));
    const last = due.at(-1);
    if (last === undefined) return;
    try {
      const traces = due.flatMap((fence) => fence.traces).slice(0, MOST_TRACES);
      const token = await this.#options.writer.write(last.side, traces);
      this.#failures = 0;
      for (const fence of due) fence.settle(token);
    } catch (error) {
      this.#overdue = due;
      await this.#backoff(error);
    }
  }

  /** Nobody is harmed while fences cannot be written: clients stay with the authority. So quietly, but for ever. */
  async #backoff(error: unknown): Promise<void> {
    const ms = Math.min(1_000, 10 * 2 ** this.#failures++);
    const level = this.#failures === 5 ? "warn" : "debug";
    this.#options.log[level](
      { retryInMs: ms, failures: this.#failures },
      `cannot write a fence: ${messageOf(error)}; reads stay with the authority`,
    );
    await sleep(ms, undefined, { signal: this.#stop.signal }).catch(() => {});
  }

  /** Waits for others to share the fence with, until somebody is in a hurry. */
  async #gather(): Promise<void> {
    const hurry = new AbortController();
    this.#hurry = () => hurry.abort();
    const signal = AbortSignal.any([hurry.signal, this.#stop.signal]);
    await sleep(this.#options.lazyMs, undefined, { signal }).catch(() => {});
    this.#hurry = undefined;
  }
}
