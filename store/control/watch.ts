import { messageOf } from "../../config/errors.ts";
import { RunningState } from "../../config/lifecycle.ts";
import type { Log } from "../../config/lifecycle.ts";
import { noteStanding } from "../../config/standing.ts";
import { pushedMigration, readMigration } from "./migration.ts";
import type { Migration } from "./migration.ts";
import type { Listener } from "./listen.ts";
import type { ControlStore } from "./open.ts";

export type StateHandler = (now: Migration, before: Migration | undefined) => void;

const POLL_MS = 1_000;
/** A row that a notification brought is read again after so long: in the middle of a flip everybody would read at once. */
const CONFIRM_MS = 50;
/** After one that holds writes: by then most flips are over. */
const CONFIRM_HOLD_MS = 200;
/** Older than this and the last read says nothing about now. */
const FRESH_MS = 3_000;

/**
 * Keeps the last known migration row: as a notification carries it, and read again after every notification, on reconnection
 * and once a second, because a notification may be lost and anybody in the database may send one. What was read last wins. While the store is away the last row stays (fail-static) and `connected` says so.
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
  /** When a notification last brought a row: what was asked for before then may be older than it. */
  #pushedAt = Number.NEGATIVE_INFINITY;
  #failing = false;
  #looking: Promise<void> = Promise.resolve();
  #nextLook: Promise<void> | undefined;

  constructor(store: ControlStore, listener: Listener, log: Log) {
    this.#store = store;
    this.#log = log;
    this.#running = new RunningState({ name: "control store", log });
    this.#unsubscribe = [
      listener.on((message) => {
        if (message.t === "state") this.#hear(message.row);
      }),
      listener.onConnected(() => this.#running.wake()),
    ];
    this.#loop = this.#run();
  }

  /** The last row read; undefined until the first. */
  get current(): Migration | undefined {
    return this.#current;
  }

  /** When the last reading that arrived was asked for, by `performance.now()`. */
  get readAt(): number {
    return this.#readAt;
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

  /**
   * Reads the row now. Resolves when a reading that begins after this call has arrived, or failed; whoever asks meanwhile shares
   * the next.
   */
  look(): Promise<void> {
    this.#nextLook ??= this.#looking.then(() => {
      this.#nextLook = undefined;
      this.#looking = this.#running.shouldRun() ? this.#read() : Promise.resolve();
      return this.#looking;
    });
    return this.#nextLook;
  }

  async stop(): Promise<void> {
    this.#running.stop();
    for (const off of this.#unsubscribe) off();
    await Promise.all([this.#loop, this.#looking]);
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
      if (asked >= this.#pushedAt || now.version >= (this.#current?.version ?? 0))
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

  #hear(row: unknown): void {
    const current = this.#current;
    const pushed = current === undefined ? undefined : pushedMigration(row, current);
    if (current === undefined || pushed === undefined) {
      this.#running.wake();
      return;
    }
    this.#running.wakeIn(pushed.hold === undefined ? CONFIRM_MS : CONFIRM_HOLD_MS);
    if (pushed.version <= current.version) return;
    this.#pushedAt = performance.now();
    this.#accept(pushed);
  }

  #accept(now: Migration): void {
    const before = this.#current;
    if (before !== undefined && isSame(before, now)) {
      // The clocks drift: leases are placed by the last reading.
      this.#current = { ...before, read: now.read };
      return;
    }
    this.#current = now;
    noteStanding(now);
    if (!this.#running.shouldRun()) return;
    for (const handler of this.#handlers) handler(now, before);
  }
}

/** The times aside: the same moments, read twice. */
function isSame(a: Migration, b: Migration): boolean {
  const compared = (row: Migration) =>
    JSON.stringify({ ...row, hold: row.hold?.attempt, read: undefined, phaseSince: undefined });
  return a.version === b.version && compared(a) === compared(b);
}

/** Starts watching the migration row; returns at once. */
export function watchState(store: ControlStore, listener: Listener, log: Log): StateWatcher {
  return new StateWatcher(store, listener, log);
}
