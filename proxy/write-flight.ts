import type { HoldGate } from "./hold.ts";

/** An answer that waits so long for its client waits for nothing that the app does. */
const STALLED_MS = 100;

/**
 * A write from being sent to an app until the app has answered, or its answer waits for the client: so long a flip waits for
 * it. What an app still wrote after that the guard would refuse.
 */
export class WriteFlight {
  /** In which it was sent. */
  readonly epoch: number;
  readonly #hold: HoldGate;
  readonly #requestId: string;
  #isOver = false;
  #stalled: NodeJS.Timeout | undefined;

  constructor(hold: HoldGate, requestId: string, epoch: number) {
    this.epoch = epoch;
    this.#hold = hold;
    this.#requestId = requestId;
    hold.begin(requestId);
  }

  /** The client does not take the answer as fast as it comes; then it does again. */
  onBackpressure(isOn: boolean): void {
    clearTimeout(this.#stalled);
    if (isOn && !this.#isOver) this.#stalled = setTimeout(() => this.end(), STALLED_MS);
  }

  end(): void {
    clearTimeout(this.#stalled);
    if (!this.#isOver) this.#hold.end(this.#requestId);
    this.#isOver = true;
  }
}
