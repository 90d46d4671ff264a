import { messageOf } from "../../config/errors.ts";
import type { Log } from "../../config/lifecycle.ts";
import { notifyPassed } from "../../store/control/listen.ts";
import type { ControlStore } from "../../store/control/open.ts";

/**
 * Tells the sidecars which fence was passed, beside the mirror's own work: the mirror neither waits for the control
 * store nor stops when that is away. One message in flight; of those that wait only the newest is sent, because a
 * higher fence says all that a lower one does. A lost message is made up for by the next one, and by heartbeats.
 */
export class PassedNews {
  readonly #store: ControlStore;
  readonly #log: Log;
  #next: { readonly epoch: number; readonly fence: bigint } | undefined;
  #sending: Promise<void> | undefined;

  constructor(store: ControlStore, log: Log) {
    this.#store = store;
    this.#log = log;
  }

  announce(epoch: number, fence: bigint): void {
    this.#next = { epoch, fence };
    this.#sending ??= this.#send();
  }

  /** Resolves when nothing is on its way any more. */
  async idle(): Promise<void> {
    await this.#sending;
  }

  async #send(): Promise<void> {
    while (this.#next !== undefined) {
      const { epoch, fence } = this.#next;
      this.#next = undefined;
      try {
        await notifyPassed(this.#store, epoch, fence);
      } catch (error) {
        this.#log.warn(
          { err: error },
          `mirror: sidecars are not told of a passed fence: ${messageOf(error)}`,
        );
      }
    }
    this.#sending = undefined;
  }
}
