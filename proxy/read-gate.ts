import type { Consistency } from "../config/words.ts";
import type { Fence, FenceView } from "./fences.ts";
import type { RoutingState } from "./ports.ts";
import { wantedShare } from "./route.ts";

export interface GateFacts {
  readonly state: RoutingState;
  readonly connected: boolean;
  readonly alone: boolean;
  /** Why what binds clients cannot be shared with others; undefined: it can, or need not. */
  readonly redis?: string | undefined;
  readonly view: FenceView;
  readonly now: number;
}

export interface ReadGateOptions {
  readonly consistency: Consistency;
  /** Reads leave the follower when no fence has passed for so long. */
  readonly lagMs: number;
  /** Asks for a fence on the authority. */
  readonly askFence: (urgent: boolean) => Fence;
  /** The gate opens from zero: all that bound single clients is covered by the gate's own fence. */
  readonly onOpening: () => void;
}

/** Why fewer reads go to new than phase and share ask for. */
export type GateReason = "disconnected" | "redis" | "other sidecars" | "lagging" | "opening";

/**
 * How large a share of clients may read from the follower at this moment.
 *
 * Before a client's reads may go there for the first time, everything it has seen of the authority must be there. Nobody
 * kept fences for clients that only ever met the authority, so the share grows in two steps: first every answer of the
 * authority to a client of the wanted share binds that client (`tracking`), and a fence is taken; when that fence has passed,
 * what was answered before is in both schemas, and the share grows. This holds for a new phase, a larger step, a start, a
 * reconnection, a new epoch, and the end of a lag. Shrinking needs nothing: the authority is never behind.
 *
 * With other sidecars about, or cut off from the control store, this sidecar does not know what its clients did elsewhere or
 * what has passed: then the gate is shut and the authority answers everything.
 */
export class ReadGate {
  readonly #options: ReadGateOptions;
  #share = 0;
  #wanted = 0;
  #why: GateReason | undefined;
  #barrier: Fence | undefined;
  #barrierFor = 0;
  #epoch = -1;
  /** The fence by which lag is measured: one is always on its way while it matters. */
  #probe: Fence | undefined;
  #lagging = false;

  constructor(options: ReadGateOptions) {
    this.#options = options;
  }

  /** Clients whose bucket is below may read from the follower. */
  get share(): number {
    return this.#share;
  }

  /** What phase and canary step ask for. */
  get wanted(): number {
    return this.#wanted;
  }

  get why(): GateReason | undefined {
    return this.#why;
  }

  /** No fence has passed for longer than allowed. */
  get lagging(): boolean {
    return this.#lagging;
  }

  /** Answers of the authority bind clients of the wanted share. */
  get tracking(): boolean {
    if (this.#options.consistency === "eventual" || this.#wanted === 0) return false;
    return this.#why === undefined || this.#why === "opening";
  }

  /** Looks at everything again: on every change of state or link, every fence passed, and every tick. */
  update(facts: GateFacts): void {
    const { state } = facts;
    if (state.epoch !== this.#epoch) this.#shut();
    this.#epoch = state.epoch;
    this.#wanted = wantedShare(state);
    const shut = this.#shutBy(facts);
    if (shut !== undefined) this.#shut();
    this.#why = shut;
    if (shut === undefined && this.#wanted > 0) this.#open(facts.view);
    if (this.#wanted === 0) this.#shut();
  }

  /** Measures lag: a fence on its way for too long means that the follower is behind. `needed`: somebody cares. */
  measure(facts: GateFacts, needed: boolean): void {
    if (!needed) {
      this.#probe = undefined;
      this.#lagging = false;
      return;
    }
    if (this.#probe === undefined || this.#probe.standing(facts.view) === "passed") {
      this.#lagging = false;
      this.#probe = this.#options.askFence(false);
    } else if (facts.now - this.#probe.askedAt > this.#options.lagMs) {
      this.#lagging = true;
    }
  }

  /** Too many clients are bound to remember: bind all of them, and start again. */
  restart(facts: GateFacts): void {
    this.#shut();
    this.update(facts);
  }

  #shutBy({ state, connected, alone, redis }: GateFacts): GateReason | undefined {
    if (this.#wanted === 0) return undefined;
    const promises = this.#options.consistency !== "eventual";
    if (promises && !connected) return "disconnected";
    if (promises && redis !== undefined) return "redis";
    if (promises && !alone) return "other sidecars";
    return state.lagging || this.#lagging ? "lagging" : undefined;
  }

  #open(view: FenceView): void {
    if (this.#options.consistency === "eventual" || this.#wanted <= this.#share) {
      this.#share = this.#wanted;
      this.#barrier = undefined;
      return;
    }
    this.#why = "opening";
    if (this.#barrier === undefined || this.#barrierFor < this.#wanted) {
      if (this.#share === 0) this.#options.onOpening();
      this.#barrierFor = this.#wanted;
      this.#barrier = this.#options.askFence(true);
    }
    if (this.#barrier.standing(view) !== "passed") return;
    this.#share = this.#wanted;
    this.#barrier = undefined;
    this.#why = undefined;
  }

  #shut(): void {
    this.#share = 0;
    this.#barrier = undefined;
    this.#barrierFor = 0;
  }
}
