import type { Fence, FenceView } from "./fences.ts";
import type { Standing } from "./route.ts";

export interface CausalTokensOptions {
  /** Called when more clients are bound than may be remembered: the caller must bind everybody, then `clear()`. */
  readonly onOverflow: () => void;
  readonly limit?: number;
}

/**
 * Which identity is bound by which fence. A fence that has passed is dropped; one that has not is never dropped alone.
 * Fences are asked for in order and a key moves to the end when it is bound again, so the map is in fence order and sweeping
 * stops at the first that has not passed.
 */
export class CausalTokens {
  readonly #fences = new Map<string, Fence>();
  /** Writes whose outcome is unknown (the client left, the app broke off): they may be applied until then. */
  readonly #unclear = new Map<string, number>();
  readonly #options: Required<CausalTokensOptions>;

  constructor(options: CausalTokensOptions) {
    this.#options = { limit: 100_000, ...options };
  }

  get size(): number {
    return this.#fences.size + this.#unclear.size;
  }

  bind(keys: readonly string[], fence: Fence): void {
    for (const key of keys) {
      this.#fences.delete(key);
      this.#fences.set(key, fence);
    }
    if (this.#fences.size > this.#options.limit) this.#options.onOverflow();
  }

  /** Binds the keys to the authority until `until`, whatever passes. Whoever binds takes a fence then (`endUnclear`). */
  bindUnclear(keys: readonly string[], until: number): void {
    for (const key of keys) {
      this.#unclear.delete(key);
      this.#unclear.set(key, until);
    }
    for (const key of this.#unclear.keys()) {
      if (this.#unclear.size <= this.#options.limit) break;
      this.#unclear.delete(key);
    }
  }

  /** Takes out the keys whose time is up: from now on an ordinary fence covers them. */
  endUnclear(now: number): string[] {
    const ended: string[] = [];
    for (const [key, until] of this.#unclear) {
      if (until > now) break;
      this.#unclear.delete(key);
      ended.push(key);
    }
    return ended;
  }

  /** New identities of a client are bound by what bound its old ones. */
  inherit(from: readonly string[], to: readonly string[], view: FenceView): void {
    for (const key of from) {
      const fence = this.#fences.get(key);
      if (fence !== undefined && fence.standing(view) !== "passed") this.bind(to, fence);
      const until = this.#unclear.get(key);
      if (until !== undefined) this.bindUnclear(to, until);
    }
  }

  standing(keys: readonly string[], view: FenceView): Standing {
    let worst: Standing = "passed";
    for (const key of keys) {
      const standing = this.#standingOf(key, view);
      if (typeof standing === "object") return standing;
      if (standing === "unpassed") worst = standing;
    }
    return worst;
  }

  sweep(view: FenceView): void {
    for (const [key, fence] of this.#fences) {
      if (fence.standing(view) !== "passed") break;
      this.#fences.delete(key);
    }
  }

  /** Forgets all fences: something else binds everybody until a later fence has passed. */
  clear(): void {
    this.#fences.clear();
  }

  #standingOf(key: string, view: FenceView): Standing {
    if (this.#unclear.has(key)) return "unpassed";
    const fence = this.#fences.get(key);
    if (fence === undefined) return "passed";
    const standing = fence.standing(view);
    if (standing === "passed") this.#fences.delete(key);
    return standing;
  }
}
