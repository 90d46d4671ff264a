export interface BreakerOptions {
  /** So many failures in a row, and the app is asked no more. */
  readonly failures?: number;
  /** How long it is left alone before one request tries it again. */
  readonly restMs?: number;
}

/**
 * Stops asking an app that does not answer. While it is open everything goes elsewhere, except one request per rest, the probe; its answer
 * closes the breaker. A probe that never ends blocks nothing: the next one comes a rest later.
 */
export class Breaker {
  readonly #options: Required<BreakerOptions>;
  #failures = 0;
  #opened = 0;
  #probeAt: number | undefined;

  constructor(options: BreakerOptions = {}) {
    this.#options = { failures: 5, restMs: 2_000, ...options };
  }

  get isOpen(): boolean {
    return this.#probeAt !== undefined;
  }

  /** How often it has opened. */
  get opened(): number {
    return this.#opened;
  }

  /** Whether a request may go to the app now. */
  ask(now: number): "go" | "probe" | "rest" {
    if (this.#probeAt === undefined) return "go";
    if (now < this.#probeAt) return "rest";
    this.#probeAt = now + this.#options.restMs;
    return "probe";
  }

  answered(): void {
    this.#failures = 0;
    this.#probeAt = undefined;
  }

  failed(now: number): void {
    this.#failures += 1;
    if (this.#failures < this.#options.failures) return;
    if (this.#probeAt === undefined) this.#opened += 1;
    this.#probeAt = now + this.#options.restMs;
  }
}

/** What a gateway or an app says that cannot do its work at all; any other status is an answer. */
export function isDead(status: number): boolean {
  return status >= 502 && status <= 504;
}
