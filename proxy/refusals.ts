import { setTimeout as sleep } from "node:timers/promises";
import type { RoutingSource } from "./ports.ts";

/** How often a failed write, which the guard may have refused, is reason to ask for the state. */
const SUSPECT_MS = 250;
/** A control store that takes longer to say what holds is away: the client gets the app's answer. */
const LOOK_MS = 1_000;

/**
 * What follows when an app could not do a write: maybe another side is the authority by now, and this sidecar has not heard.
 * The guard has refused it then, whose word reaches a sidecar only as the app's answer (DESIGN §2.6).
 */
export class Refusals {
  readonly #source: Pick<RoutingSource, "state" | "look">;
  #suspectedAt = Number.NEGATIVE_INFINITY;

  constructor(source: Pick<RoutingSource, "state" | "look">) {
    this.#source = source;
  }

  /** A write has failed, and nobody says why. */
  suspect(): void {
    const now = performance.now();
    if (now - this.#suspectedAt < SUSPECT_MS) return;
    this.#suspectedAt = now;
    void this.#source.look();
  }

  /**
   * Whether a write that was not applied goes another way now than it did in `epoch`: a flip is through, or under way. Where the
   * state is as it was, the app refused for a reason of its own, and would again.
   */
  async isOutdated(epoch: number): Promise<boolean> {
    const over = new AbortController();
    await Promise.race([
      this.#source.look(),
      sleep(LOOK_MS, undefined, { signal: over.signal }).catch(() => {}),
    ]);
    over.abort();
    const now = this.#source.state();
    return now !== undefined && (now.epoch > epoch || now.hold !== null);
  }
}
