import { Transform, type TransformCallback } from "node:stream";

/** How a copy is stretched: in small pieces with rests between them. */
export interface CopyPace {
  /** ms to rest for each byte. */
  readonly restPerByte: number;
  /** ms to rest in all, at most: rows are locked meanwhile. */
  readonly mostMs: number;
}

/** A timer takes no less. */
const LEAST_REST_MS = 1;

/**
 * Passes bytes on as they come, and rests in between. What reads or writes them works as fast as ever, for some milliseconds at
 * a time: whoever needs the same processor waits for one piece and not for a whole chunk.
 */
export class Stretch extends Transform {
  readonly #pace: CopyPace;
  restedMs = 0;
  #owedMs = 0;
  #rest: NodeJS.Timeout | undefined;

  constructor(pace: CopyPace) {
    super();
    this.#pace = pace;
  }

  override _transform(piece: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const { restPerByte, mostMs } = this.#pace;
    this.#owedMs += piece.length * restPerByte;
    const rest = Math.min(this.#owedMs, mostMs - this.restedMs);
    if (rest < LEAST_REST_MS) {
      done(null, piece);
      return;
    }
    const since = performance.now();
    this.#rest = setTimeout(() => {
      const rested = performance.now() - since;
      this.restedMs += rested;
      this.#owedMs -= rested;
      done(null, piece);
    }, rest);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearTimeout(this.#rest);
    done(error);
  }
}
