import type { Side } from "../../config/words.ts";

/** One changed row: values of the logged columns before or after the change. */
export interface FeedChange {
  readonly kind: "row";
  readonly table: number;
  readonly values: readonly (string | null)[];
}

/** A table was emptied by TRUNCATE. */
export interface FeedTruncate {
  readonly kind: "truncate";
  readonly table: number;
}

/** What one pass takes from the feed. */
export interface FeedBatch {
  readonly changes: readonly (FeedChange | FeedTruncate)[];
  /** The highest fence among what was read. */
  readonly fence: bigint | undefined;
  /** Trace contexts that came with its fences (W3C `traceparent`). */
  readonly traces: readonly string[];
  /** How long the oldest change had been in the log when it was read, ms. */
  readonly oldestAgeMs: number;
  readonly size: number;
  /** More may be waiting: the batch was cut at its limit. */
  readonly full: boolean;
  /** wal feed: everything the authority committed before this is in this batch or an earlier one; saved with the rows. */
  readonly position?: string;
}

/**
 * The stream of keys of changed rows on the authority. `read` hands out what is there; it comes again on the next
 * `read` unless `confirm` was called, which is allowed only after what was made of it is durable on the target.
 */
export interface Feed {
  readonly side: Side;
  read(limit: number): Promise<FeedBatch>;
  /** `pass` is the number of the pass that made it durable. */
  confirm(batch: FeedBatch, pass: bigint): Promise<void>;
  /** Writes a fence and returns its id. */
  writeFence(): Promise<bigint>;
  close(): Promise<void>;
}
