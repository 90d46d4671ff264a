import { query } from "./open.ts";
import type { ControlStore } from "./open.ts";

/**
 * How fast the copy may go, one row for all workers on all machines: whoever finds it due writes the next one, and a
 * compare-and-set on its time keeps two from doing so for the same moment.
 */
export interface Pace {
  /** Share of their time that workers may copy, above 0, at most 1. */
  readonly share: number;
  /** Why it is below 1, or what could not be measured. */
  readonly reason: string | undefined;
  /** The app's usual p99 in ms by kind of request, measured while (next to) nothing is copied. */
  readonly baseline: Readonly<Record<string, number>>;
  /** There was something to copy when it was set. */
  readonly copying: boolean;
  /** The share stays as it is for so many ticks. */
  readonly waiting: Waiting | undefined;
}

/** `usual`: the app's usual p99 is measured first. `effect`: the heartbeats do not tell yet what the last cut did. */
export interface Waiting {
  readonly for: "usual" | "effect";
  readonly ticks: number;
}

export interface PaceRow extends Pace {
  /** ms since it was set, by the server's clock. */
  readonly ageMs: number;
  /** What a compare-and-set compares. */
  readonly at: string;
}

export async function readPace(store: ControlStore): Promise<PaceRow> {
  const rows = await query<{
    share: number;
    reason: string | null;
    baseline: Record<string, number>;
    copying: boolean;
    waiting: Waiting | null;
    age_ms: number;
    at: string;
  }>(
    store,
    `select share, reason, baseline, copying, waiting, at::text, (extract(epoch from clock_timestamp() - at) * 1000)::float8 as age_ms
     from ${store.table("pace")}`,
  );
  const row = rows[0];
  if (row === undefined) throw new Error("the control store has no pace");
  return {
    share: row.share,
    reason: row.reason ?? undefined,
    baseline: row.baseline,
    copying: row.copying,
    waiting: row.waiting ?? undefined,
    ageMs: row.age_ms,
    at: row.at,
  };
}

/** Sets the next pace unless somebody else has since `seen` was read; whether it did. */
export async function setPace(store: ControlStore, seen: PaceRow, next: Pace): Promise<boolean> {
  const rows = await query(
    store,
    `update ${store.table("pace")} set share = $2, reason = $3, baseline = $4, copying = $5, waiting = $6, at = clock_timestamp()
     where at = $1::timestamptz returning share`,
    [
      seen.at,
      next.share,
      next.reason ?? null,
      JSON.stringify(next.baseline),
      next.copying,
      next.waiting === undefined ? null : JSON.stringify(next.waiting),
    ],
  );
  return rows.length === 1;
}
