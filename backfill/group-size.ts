/** Neighbours taken together at most: each locks a stripe. */
const LIMIT = 64;

/** How many neighbouring chunks of a table to take together, so that a sync takes about as long as it should. */
export class GroupSize {
  readonly #targetMs: number;
  #table = "";
  #size = 1;

  constructor(targetMs: number) {
    this.#targetMs = targetMs;
  }

  /**
   * A copy that works only a share of its time takes as much less at once: the app feels many short pieces less than a few
   * long ones.
   */
  next(table: string, most: number, share: number): number {
    if (table !== this.#table) this.#size = 1;
    this.#table = table;
    return Math.max(1, Math.min(LIMIT, most, Math.floor(this.#size * share)));
  }

  /** At most twice as many as before: one quick sync (of rows that were there already) proves little. */
  took(table: string, chunks: number, ms: number): void {
    if (table !== this.#table) return;
    const fit = chunks * (this.#targetMs / Math.max(1, ms));
    this.#size = Math.max(1, Math.min(LIMIT, chunks * 2, fit));
  }
}
