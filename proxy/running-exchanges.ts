import type { Exchange } from "./exchange.ts";
import { Gathering } from "./gathering.ts";

/** How often to look again at what runs: that an answer is a stream shows only when it begins. */
const LOOK_MS = 100;

/** The requests under way, and their end when the sidecar stops. */
export class RunningExchanges {
  readonly #all = new Gathering<Exchange>();
  #draining = false;
  #onIdle: (() => void) | undefined;

  get size(): number {
    return this.#all.size;
  }

  add(exchange: Exchange): void {
    this.#all.add(exchange);
    if (this.#draining) exchange.endConnection();
  }

  over(exchange: Exchange): void {
    this.#all.delete(exchange);
    if (this.#all.size === 0) this.#onIdle?.();
  }

  /** Waits for what runs, at most so long. Streams are not waited for: they have no end of their own. */
  async drain(limitMs: number, onLook: () => void): Promise<void> {
    this.#draining = true;
    this.#all.each((exchange) => exchange.endConnection());
    const deadline = performance.now() + limitMs;
    while (performance.now() < deadline && this.#all.some((exchange) => !exchange.isEndless)) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
        setTimeout(resolve, Math.min(LOOK_MS, deadline - performance.now()));
      });
      onLook();
    }
  }
}
