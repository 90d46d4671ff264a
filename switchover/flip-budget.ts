import { CrossfadeError } from "../config/errors.ts";

/** Kept back from the hold for what follows the decision: committing, opening, telling the sidecars. */
const RESERVE = { share: 0.2, minMs: 20, maxMs: 250 };
/**
 * The lease outlives the budget by this. Nothing is undone after the decision, so that writes are better held a little longer
 * than sent to a side that refuses them: with a lease that ended with the budget, a flip that decided at 397 of 500 ms on a
 * loaded machine and needed 110 ms more failed every write it held.
 */
const AFTER_BUDGET_MS = 500;

/**
 * The time of a hold. Starts when the sidecars are asked to hold; the decision must fall well before the budget is spent, so
 * that the rest usually fits into it too.
 */
export class Budget {
  readonly #start: number;
  readonly #leaseMs: number;
  readonly #decideMs: number;

  constructor(budgetMs: number, now = performance.now()) {
    this.#start = now;
    this.#leaseMs = budgetMs + AFTER_BUDGET_MS;
    const reserve = Math.min(RESERVE.maxMs, Math.max(RESERVE.minMs, budgetMs * RESERVE.share));
    this.#decideMs = Math.max(1, budgetMs - reserve);
  }

  /** After this the sidecars lift the hold by themselves. */
  get leaseMs(): number {
    return this.#leaseMs;
  }

  /** ms until the decision must have fallen; throws TIMEOUT when it is too late for `what`. */
  left(what: string, now = performance.now()): number {
    const left = this.#start + this.#decideMs - now;
    if (left > 1) return Math.floor(left);
    throw new CrossfadeError("TIMEOUT", `the hold's budget was spent before ${what}`, {
      hint: "The flip was undone and nothing moved. See the receipt's steps for what took the time; `flip.hold` sets the budget.",
    });
  }

  /** ms until the sidecars lift the hold by themselves; 0 when they have. */
  leaseLeft(now = performance.now()): number {
    return Math.max(0, this.#start + this.#leaseMs - now);
  }
}

/** Rejects with TIMEOUT if `work` has not settled after `ms`: a server that is gone never answers a query. */
export async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new CrossfadeError("TIMEOUT", `${what}: no answer within ${Math.round(ms)} ms`)),
      ms,
    );
  });
  // The loser of the race may still fail later; its error has nobody left to care.
  work.catch(() => {});
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
