import { messageOf } from "../../config/errors.ts";
import { RunningState } from "../../config/lifecycle.ts";
import type { Log } from "../../config/lifecycle.ts";
import { readMigration } from "./migration.ts";
import type { Migration } from "./migration.ts";
import type { Listener } from "./listen.ts";
import type { ControlStore } from "./open.ts";

export type StateHandler = (now: Migration, before: Migration | undefined) => void;

const POLL_MS = 1_000;
/** Older than this and the last read says nothing about now. */
const FRESH_MS = 3_000;

/**
 * Keeps the last known migration row: read again on every notification, on reconnection and once a second, because a
 * notification may be lost. While the store is away the last row stays (fail-static) and `connected` says so.
 */
export class StateWatcher {
  readonly #store: ControlStore;
  readonly #log: Log;
  readonly #handlers = new Set<StateHandler>();
  readonly #running: RunningState;
  readonly #unsubscribe: readonly (() => void)[];
  readonly #loop: Promise<void>;
  #current: Migration | undefined;
  #readAt = Number.NEGATIVE_INFINITY;
  #failing = false;

  constructor(store: ControlStore, listener: Listener, log: Log) {
    this.#store = store;
    this.#log = log;
    this.#running = new RunningState({ name: "control store", log });
    this.#unsubscribe = [
      listener.on((message) => message.t === "state" && this.#running.wake()),
      listener.onConnected(() => this.#running.wake()),
    ];
    this.#loop = this.#run();
  }

  /** The last row read; undefined until the first. */
  get current(): Migration | undefined {
    return this.#current;
  }

  /** Whether the row was read within the last seconds. */
  get connected(): boolean {
    return performance.now() - this.#readAt < FRESH_MS;
  }

  /** Called with every changed row, and at once with the current one if there is one. */
  onChange(handler: StateHandler): () => void {
    this.#handlers.add(handler);
    if (this.#current !== undefined) handler(this.#current, undefined);
    return () => this.#handlers.delete(handler);
  }

  /** Resolves with the first row that matches; rejects on abort. */
  async until(
    matches: (migration: Migration) => boolean,
    signal?: AbortSignal,
  ): Promise<Migration> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason as Error);
      if (this.#current !== undefined && matches(this.#current)) return resolve(this.#current);
      const off = this.onChange((now) => {
        if (!matches(now)) return;
        done();
        resolve(now);
      });
      const onAbort = () => {
        done();
        reject(signal?.reason as Error);
      };
      const done = () => {
        off();
        signal?.removeEventListener("abort", onAbort);
      };
      signal?.addEventListener("abort", onAbort);
    });
  }

  async stop(): Promise<void> {
    this.#running.stop();
    for (const off of this.#unsubscribe) off();
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (this.#running.shouldRun()) {
      await this.#read();
      await this.#running.sleep(POLL_MS);
    }
  }

  async #read(): Promise<void> {
    const asked = performance.now();
    try {
      const now = await readMigration(this.#store);
      this.#readAt = asked;
      if (this.#failing) this.#log.info({}, "control store: reachable again");
      this.#failing = false;
      this.#accept(now);
    } catch (error) {
      if (!this.#failing)
        this.#log.warn(
          {},
          `control store: ${messageOf(error)}; going on with the last known state`,
        );
      this.#failing = true;
    }
  }

  #accept(now: Migration): void {
    const before = this.#current;
    if (before !== undefined && before.version === now.version) return;
    this.#current = now;
    if (!this.#running.shouldRun()) return;
    for (const handler of this.#handlers) handler(now, before);
  }
}

/** Starts watching the migration row; returns at once. */
export function watchState(store: ControlStore, listener: Listener, log: Log): StateWatcher {
  return new StateWatcher(store, listener, log);
}
