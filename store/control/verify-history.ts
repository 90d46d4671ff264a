import type { Direction } from "../../config/words.ts";
import { type ControlStore, query } from "./open.ts";
import type { VerifyState } from "./verify-runs.ts";

/** What the last run that looked at a table found there. */
export interface TableVerified {
  readonly table: string;
  readonly direction: Direction;
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
    `select distinct on (r.direction, c.tbl) c.tbl as table, r.direction, r.state, coalesce(r.finished, r.started) as at,
       c.rows::float8 as rows, c.found::float8 as found, c.missing::float8 as missing, c.extra::float8 as extra, c.different::float8 as different
     from (
       select run, tbl, sum(rows) as rows, sum(rows + extra - missing) filter (where n > -1001) as found, sum(missing) as missing, sum(extra) as extra, sum(different) as different
       from ${store.table("verify_chunk")} group by run, tbl) c
     join ${store.table("verify_run")} r on r.id = c.run
     order by r.direction, c.tbl, r.id desc`,
  );
}
