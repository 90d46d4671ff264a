import { messageOf } from "./errors.ts";

/** What a loop logs to; pino's logger fits. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface RunningStateOptions {
  readonly name: string;
  readonly log: Log;
  /** Errors that no repetition heals: the loop ends and `stopped` rejects with it. */
  readonly isFatal?: (error: unknown) => boolean;
  readonly initialBackoffMs?: number;
  readonly maxBackoffMs?: number;
}

/**
 * The lifecycle of one long-running loop: run until stopped, sleep abortably, back off after errors.
 * The log level of a failure rises with the delay it causes, so that one blip stays quiet and an outage does not.
 */
export class RunningState {
  readonly #abort = new AbortController();
  readonly #options: Required<Omit<RunningStateOptions, "isFatal">> &
    Pick<RunningStateOptions, "isFatal">;
  #delay = 0;
  #wake: (() => void) | undefined;
  #woken = false;
  #soon: NodeJS.Timeout | undefined;
  #fatal: unknown;

  constructor(options: RunningStateOptions) {
    this.#options = { initialBackoffMs: 50, maxBackoffMs: 5_000, ...options };
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The error that ended the loop, if one did. */
  get fatal(): unknown {
    return this.#fatal;
  }

  shouldRun(): boolean {
    return !this.#abort.signal.aborted;
  }

  stop(): void {
    this.#abort.abort();
    clearTimeout(this.#soon);
    this.#wake?.();
  }

  /** Ends the current (or the next) `sleep` early: there is something to do. */
  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  /** `wake` in so many ms; what is asked for again until then is done once. */
  wakeIn(ms: number): void {
    if (!this.shouldRun()) return;
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      this.wake();
    }, ms);
  }

  /** Resolves after `ms`, or at once on `wake()` or `stop()`. */
  async sleep(ms: number): Promise<void> {
    if (!this.shouldRun()) return;
    if (!this.#woken) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    this.#woken = false;
  }

  /** Call after real progress: the next error starts again with the shortest delay. */
  healthy(): void {
    this.#delay = 0;
  }

  /** Waits before the next round if `error` is set; stops the loop if it cannot heal. */
  async backoff(error: unknown): Promise<void> {
    if (error === undefined || !this.shouldRun()) return;
    const { name, log, isFatal, initialBackoffMs, maxBackoffMs } = this.#options;
    if (isFatal?.(error) === true) {
      this.#fatal = error;
      log.error({ err: error }, `${name}: cannot go on: ${messageOf(error)}`);
      this.stop();
      return;
    }
    this.#delay = Math.min(maxBackoffMs, this.#delay === 0 ? initialBackoffMs : this.#delay * 2);
    const level = this.#delay >= 2_000 ? "error" : this.#delay >= 400 ? "warn" : "info";
    log[level](
      { err: error, retryInMs: this.#delay },
      `${name}: ${messageOf(error)}; trying again`,
    );
    this.#woken = false;
    await this.sleep(this.#delay);
  }
}
