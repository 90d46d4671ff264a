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

  next(table: string, most: number): number {
    if (table !== this.#table) this.#size = 1;
    this.#table = table;
    return Math.max(1, Math.min(LIMIT, most, Math.floor(this.#size)));
  }

  /** At most twice as many as before: one quick sync (of rows that were there already) proves little. */
  took(table: string, chunks: number, ms: number): void {
    if (table !== this.#table) return;
    const fit = chunks * (this.#targetMs / Math.max(1, ms));
    this.#size = Math.max(1, Math.min(LIMIT, chunks * 2, fit));
  }
}
