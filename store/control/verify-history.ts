import type { Direction, Side } from "../../config/words.ts";
import { type ControlStore, query } from "./open.ts";
import type { VerifyState } from "./verify-runs.ts";

/** What the last run that looked at a table found there. */
export interface TableVerified {
  readonly table: string;
  readonly direction: Direction;
  /** Only what points at others was looked at, or a check of the plan: it has no rows of its own here. */
  readonly rowless: boolean;
  readonly state: VerifyState;
  readonly at: Date;
  /** Rows that the mappings make of it. */
  readonly rows: number;
  /** Rows that stood there for them. */
  readonly found: number;
  readonly missing: number;
  readonly extra: number;
  readonly different: number;
}

/** For every table, the last verify run that compared it. Chunks from -1001 down are foreign keys and checks (backfill/verify.ts): no rows. */
export async function lastVerifiedTables(store: ControlStore): Promise<TableVerified[]> {
  return query<TableVerified & Record<string, unknown>>(
    store,
    `select distinct on (r.direction, c.tbl) c.tbl as table, r.direction, r.state, coalesce(r.finished, r.started) as at, c.rowless,
       c.rows::float8 as rows, c.found::float8 as found, c.missing::float8 as missing, c.extra::float8 as extra, c.different::float8 as different
     from (
       select run, tbl, sum(rows) as rows, coalesce(sum(rows + extra - missing) filter (where n > -1001), 0) as found, bool_and(n <= -1001) as rowless, sum(missing) as missing, sum(extra) as extra, sum(different) as different
       from ${store.table("verify_chunk")} group by run, tbl) c
     join ${store.table("verify_run")} r on r.id = c.run
     order by r.direction, c.tbl, r.id desc`,
  );
}

/** How many rows a table had when a comparison of everything that somebody asked for was at its end. */
export interface TableCounted {
  readonly side: Side;
  readonly table: string;
  readonly rows: number;
  readonly at: Date;
}

export async function recordRowCounts(
  store: ControlStore,
  run: number,
  counts: Readonly<Record<Side, Readonly<Record<string, number>>>>,
): Promise<void> {
  await query(store, `update ${store.table("verify_run")} set row_counts = $2 where id = $1`, [
    run,
    JSON.stringify(counts),
  ]);
}

/** The last count; nothing before the first. */
export async function lastRowCounts(store: ControlStore): Promise<TableCounted[]> {
  return query<TableCounted & Record<string, unknown>>(
    store,
    `select s.key as side, t.key as table, t.value::text::float8 as rows, coalesce(r.finished, clock_timestamp()) as at
     from (select finished, row_counts from ${store.table("verify_run")} where row_counts is not null order by id desc limit 1) r
     cross join lateral jsonb_each(r.row_counts) s cross join lateral jsonb_each(s.value) t order by s.key desc, t.key`,
  );
}
