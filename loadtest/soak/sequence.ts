/** Watches numbers that must come one after the other, from 0 on. */
export class Sequence {
  #next = 0;
  #lost = 0;
  #duplicated = 0;

  /** `n` came. One that comes late was counted as lost when it was passed over, and is now one too many. */
  take(n: number): void {
    if (n < this.#next) {
      this.#duplicated += 1;
      return;
    }
    this.#lost += n - this.#next;
    this.#next = n + 1;
  }

  /** Nothing more comes, and all below `end` should have. */
  end(end: number): void {
    this.#lost += Math.max(0, end - this.#next);
    this.#next = Math.max(this.#next, end);
  }

  /** How far it has come. */
  get next(): number {
    return this.#next;
  }

  get lost(): number {
    return this.#lost;
  }

  get duplicated(): number {
    return this.#duplicated;
  }
}
