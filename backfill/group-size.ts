import type { CopyPace } from "../store/postgres/stretch.ts";

/** Neighbours taken together at most: each locks a stripe. */
const LIMIT = 64;

/** A sync that is done. */
export interface Took {
  readonly chunks: number;
  /** All of its time, and what of that was rested. */
  readonly ms: number;
  readonly restedMs: number;
  /** Bytes that could be stretched. */
  readonly bytes: number;
}

/**
 * How many neighbouring chunks of a table to take together, so that a sync takes about as long as it should; and how to stretch
 * it to that where a worker may copy only a share of its time: an app feels many short pieces less than one long one.
 */
export class GroupSize {
  readonly #targetMs: number;
  #table = "";
  #size = 1;
  #next = 1;
  /** Of the last sync that could be stretched. */
  #work: { readonly msPerByte: number; readonly bytesPerChunk: number } | undefined;

  constructor(targetMs: number) {
    this.#targetMs = targetMs;
  }

  next(table: string, most: number, share: number): number {
    if (table !== this.#table) {
      this.#size = 1;
      this.#work = undefined;
    }
    this.#table = table;
    this.#next = Math.max(1, Math.min(LIMIT, most, Math.floor(this.#size * share)));
    return this.#next;
  }

  /** For what `next` gave. Rests evenly, and in all no longer than a sync should take: its rows are locked. */
  pace(table: string, share: number): CopyPace | undefined {
    if (table !== this.#table || share >= 1 || this.#work === undefined) return undefined;
    const { msPerByte, bytesPerChunk } = this.#work;
    const most = this.#targetMs / (bytesPerChunk * this.#next);
    return { restPerByte: Math.min(msPerByte * (1 / share - 1), most), mostMs: this.#targetMs };
  }

  /** At most twice as many as before: one quick sync (of rows that were there already) proves little. */
  took(table: string, { chunks, ms, restedMs, bytes }: Took): void {
    if (table !== this.#table) return;
    const worked = Math.max(1, ms - restedMs);
    const fit = chunks * (this.#targetMs / worked);
    this.#size = Math.max(1, Math.min(LIMIT, chunks * 2, fit));
    this.#work =
      bytes > 0 ? { msPerByte: worked / bytes, bytesPerChunk: bytes / chunks } : undefined;
  }
}
