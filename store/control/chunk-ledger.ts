import type { Direction } from "../../config/words.ts";
import { query } from "./open.ts";
import type { ControlStore } from "./open.ts";

export type ChunkState = "pending" | "claimed" | "done" | "failed";

/** A key range of a table of the direction's source: `lo` inclusive, `hi` exclusive, values as Postgres text. */
export interface ChunkRange {
  readonly n: number;
  /** undefined: open below. */
  readonly lo: readonly string[] | undefined;
  /** undefined: open above. */
  readonly hi: readonly string[] | undefined;
  readonly estRows: number;
  /** Version of the chunk plan it belongs to: a sync of a chunk of an older plan is refused. */
  readonly planVersion: number;
}

/** A chunk that this worker holds. `attempt` fences off a worker whose lease ran out. */
export interface ClaimedChunk extends ChunkRange {
  readonly direction: Direction;
  readonly table: string;
  readonly worker: string;
  readonly attempt: number;
}

export interface TableProgress {
  readonly table: string;
  readonly chunks: number;
  readonly done: number;
  readonly failed: number;
  readonly claimed: number;
  /** Rows copied so far. */
  readonly rows: number;
  readonly estRows: number;
  /** Rows the planner expected in the chunks that are not done. */
  readonly estRowsLeft: number;
  readonly startedAt: Date | undefined;
  /** When its last chunk was done, once all are. */
  readonly finishedAt: Date | undefined;
  /** ms from the first claim until now, or until it was finished. */
  readonly ms: number;
  /** Why a chunk failed, if one did. */
  readonly error: string | undefined;
}

/** Neighbours taken together lock a stripe each. */
const STRIPES_AT_ONCE = 64;

/** Replaces the chunks of one table. `order`: tables with a lower number are copied first. */
export async function replaceChunks(
  store: ControlStore,
  direction: Direction,
  table: string,
  chunks: readonly ChunkRange[],
  order = 0,
): Promise<void> {
  const rows = chunks.map((chunk) => ({
    n: chunk.n,
    lo: chunk.lo ?? null,
    hi: chunk.hi ?? null,
    est_rows: Math.round(chunk.estRows),
    plan_version: chunk.planVersion,
  }));
  // One statement, so that no reader sees the table without chunks (which looks like "all done").
  await query(
    store,
    `with gone as (delete from ${store.table("chunk")} c where direction = $1 and tbl = $2
                     and not exists (select from jsonb_to_recordset($4::jsonb) as r(n int) where r.n = c.n))
     insert into ${store.table("chunk")} (direction, tbl, ord, n, lo, hi, est_rows, plan_version)
     select $1, $2, $3, n, lo, hi, est_rows, plan_version
     from jsonb_to_recordset($4::jsonb) as r(n int, lo text[], hi text[], est_rows bigint, plan_version int)
     on conflict (direction, tbl, n) do update set ord = excluded.ord, lo = excluded.lo, hi = excluded.hi,
       est_rows = excluded.est_rows, plan_version = excluded.plan_version, state = 'pending', worker = null, lease_until = null, attempts = 0, rows = null, ms = null,
       error = null, claimed_at = null, finished_at = null`,
    [direction, table, order, JSON.stringify(rows)],
  );
}

/** The next chunk alone. */
export async function claimChunk(
  store: ControlStore,
  direction: Direction,
  worker: string,
  leaseMs: number,
): Promise<ClaimedChunk | undefined> {
  const [chunk] = await claimChunks(store, { direction, worker, leaseMs, most: () => 1 });
  return chunk;
}

export interface Claim {
  readonly direction: Direction;
  readonly worker: string;
  readonly leaseMs: number;
  /** How many neighbouring chunks of a table to take together, at most. */
  readonly most: (table: string) => number;
}

/** A chunk that a worker may take: pending, or of a worker that let its lease run out. */
const FREE =
  "state in ('pending', 'claimed') and (state = 'pending' or lease_until < clock_timestamp())";

/** Whether there is a chunk to take. */
export async function hasFreeChunk(store: ControlStore, direction: Direction): Promise<boolean> {
  const rows = await query(
    store,
    `select 1 from ${store.table("chunk")} where direction = $1 and ${FREE} limit 1`,
    [direction],
  );
  return rows.length > 0;
}

/**
 * Takes the next chunk in table order: one that is pending, or whose worker let its lease run out; and with it pending
 * neighbours that follow without a gap. What has failed once is taken alone, so that it is known which one fails; tables in
 * which something failed come last, so that a bad one does not keep the others waiting.
 */
export async function claimChunks(store: ControlStore, claim: Claim): Promise<ClaimedChunk[]> {
  const first = await claimFirst(store, claim);
  if (first === undefined) return [];
  const most = Math.min(STRIPES_AT_ONCE, Math.floor(claim.most(first.table)));
  if (most <= 1 || first.attempt > 1) return [first];
  const rows = await query<ChunkRow>(
    store,
    `with free as (
       select n from ${store.table("chunk")} where direction = $1 and tbl = $4 and plan_version = $7::int
         and n > $5::int and n < $5::int + $6::int and state = 'pending' and attempts = 0 order by n for update skip locked),
     next as (select n from (select n, row_number() over (order by n) as i from free) numbered where n - i = $5::int)
     update ${store.table("chunk")} c set state = 'claimed', worker = $2, attempts = attempts + 1,
       lease_until = clock_timestamp() + make_interval(secs => $3::float8 / 1000), claimed_at = coalesce(claimed_at, clock_timestamp())
     from next where c.direction = $1 and c.tbl = $4 and c.n = next.n
     returning c.tbl, c.n, c.lo, c.hi, c.est_rows, c.plan_version, c.attempts`,
    [claim.direction, claim.worker, claim.leaseMs, first.table, first.n, most, first.planVersion],
  );
  const others = rows.map((row) => toClaimed(claim, row)).toSorted((a, b) => a.n - b.n);
  return [first, ...others];
}

async function claimFirst(
  store: ControlStore,
  { direction, worker, leaseMs }: Claim,
): Promise<ClaimedChunk | undefined> {
  const rows = await query<ChunkRow>(
    store,
    `update ${store.table("chunk")} set state = 'claimed', worker = $2, attempts = attempts + 1,
       lease_until = clock_timestamp() + make_interval(secs => $3::float8 / 1000), claimed_at = coalesce(claimed_at, clock_timestamp())
     where (direction, tbl, n) = (
       select direction, tbl, n from ${store.table("chunk")}
       where direction = $1 and ${FREE}
       order by tbl = any(array(select tbl from ${store.table("chunk")} where direction = $1 and error is not null)), ord, tbl, n
       limit 1 for update skip locked)
     returning tbl, n, lo, hi, est_rows, plan_version, attempts`,
    [direction, worker, leaseMs],
  );
  const row = rows[0];
  return row === undefined ? undefined : toClaimed({ direction, worker }, row);
}

function toClaimed(
  { direction, worker }: Pick<Claim, "direction" | "worker">,
  row: ChunkRow,
): ClaimedChunk {
  return {
    direction,
    table: row.tbl,
    n: row.n,
    lo: row.lo ?? undefined,
    hi: row.hi ?? undefined,
    estRows: row.est_rows,
    planVersion: row.plan_version,
    worker,
    attempt: row.attempts,
  };
}

interface ChunkRow {
  tbl: string;
  n: number;
  lo: string[] | null;
  hi: string[] | null;
  est_rows: number;
  plan_version: number;
  attempts: number;
}

const MINE =
  "direction = $1 and tbl = $2 and n = $3 and worker = $4 and attempts = $5 and state = 'claimed'";

function mine(chunk: ClaimedChunk): unknown[] {
  return [chunk.direction, chunk.table, chunk.n, chunk.worker, chunk.attempt];
}

/** Keeps a chunk for longer. False: it belongs to somebody else now. */
export async function renewLease(
  store: ControlStore,
  chunk: ClaimedChunk,
  leaseMs: number,
): Promise<boolean> {
  const rows = await query(
    store,
    `update ${store.table("chunk")} set lease_until = clock_timestamp() + make_interval(secs => $6::float8 / 1000)
     where ${MINE} returning n`,
    [...mine(chunk), leaseMs],
  );
  return rows.length === 1;
}

/**
 * Records chunks of one table that were copied together: what they took and held is shared out evenly, the sums are exact.
 * Returns how many are still this worker's; the others belong to somebody else now (the copy itself was right all the same).
 */
export async function finishChunks(
  store: ControlStore,
  chunks: readonly ClaimedChunk[],
  measured: { readonly rows: number; readonly ms: number },
): Promise<number> {
  const [first] = chunks;
  if (first === undefined) return 0;
  const each = Math.floor(measured.rows / chunks.length);
  const rows = await query(
    store,
    `update ${store.table("chunk")} c set state = 'done', rows = case when c.n = $7 then $5::bigint else $6::bigint end, ms = $8, error = null, finished_at = clock_timestamp()
     from unnest($3::int[], $4::int[]) as mine(n, attempt)
     where c.direction = $1 and c.tbl = $2 and c.n = mine.n and c.worker = $9 and c.attempts = mine.attempt and c.state = 'claimed' returning c.n`,
    [
      first.direction,
      first.table,
      chunks.map((chunk) => chunk.n),
      chunks.map((chunk) => chunk.attempt),
      measured.rows - each * (chunks.length - 1),
      each,
      first.n,
      measured.ms / chunks.length,
      first.worker,
    ],
  );
  return rows.length;
}

/** Gives a chunk back after an error; after `maxAttempts` it stays failed, for a person to look at. */
export async function failChunk(
  store: ControlStore,
  chunk: ClaimedChunk,
  error: string,
  maxAttempts = 5,
): Promise<boolean> {
  const rows = await query(
    store,
    `update ${store.table("chunk")} set state = case when attempts >= $7::int then 'failed' else 'pending' end, error = $6,
       worker = null, lease_until = null
     where ${MINE} returning n`,
    [...mine(chunk), error, maxAttempts],
  );
  return rows.length === 1;
}

/** Gives a chunk back that this worker will not copy after all (it stops, or is paused). No attempt is counted. */
export async function releaseChunk(store: ControlStore, chunk: ClaimedChunk): Promise<void> {
  await query(
    store,
    `update ${store.table("chunk")} set state = 'pending', worker = null, lease_until = null, attempts = attempts - 1 where ${MINE}`,
    mine(chunk),
  );
}

/** Whether there are chunks that nobody has finished: workers copy, or rest between two of them. */
export async function hasOpenChunk(store: ControlStore): Promise<boolean> {
  const rows = await query(
    store,
    `select 1 from ${store.table("chunk")} where state in ('pending', 'claimed') limit 1`,
  );
  return rows.length > 0;
}

/** How far the copy is, per table in order. Empty when nothing was planned. */
export async function progress(
  store: ControlStore,
  direction: Direction,
): Promise<TableProgress[]> {
  const rows = await query<ProgressRow>(
    store,
    `select tbl, count(*) as chunks, count(*) filter (where state = 'done') as done,
       count(*) filter (where state = 'failed') as failed, count(*) filter (where state = 'claimed') as claimed,
       coalesce(sum(rows), 0) as rows, sum(est_rows) as est_rows,
       coalesce(sum(est_rows) filter (where state <> 'done'), 0) as est_rows_left, min(claimed_at) as started_at,
       case when count(*) = count(*) filter (where state = 'done') then max(finished_at) end as finished_at,
       min(error) filter (where state = 'failed') as error, clock_timestamp() as now
     from ${store.table("chunk")} where direction = $1 group by tbl order by min(ord), tbl`,
    [direction],
  );
  return rows.map(toProgress);
}

/** Starts over: every chunk of the direction (or only its failed ones) is pending again. Returns how many. */
export async function resetChunks(
  store: ControlStore,
  direction: Direction,
  which: { readonly onlyFailed?: boolean; readonly table?: string } = {},
): Promise<number> {
  const rows = await query(
    store,
    `update ${store.table("chunk")} set state = 'pending', worker = null, lease_until = null, attempts = 0, rows = null, ms = null,
       error = null, claimed_at = null, finished_at = null
     where direction = $1 and tbl = coalesce($2, tbl) and (not $3::bool or state = 'failed') returning n`,
    [direction, which.table ?? null, which.onlyFailed ?? false],
  );
  return rows.length;
}

/** Forgets the chunks of a direction. */
export async function clearChunks(store: ControlStore, direction: Direction): Promise<void> {
  await query(store, `delete from ${store.table("chunk")} where direction = $1`, [direction]);
}

/** The chunks of a table in order: verify compares the same ranges. */
export async function readChunks(
  store: ControlStore,
  direction: Direction,
  table: string,
): Promise<ChunkRange[]> {
  const rows = await query<{
    n: number;
    lo: string[] | null;
    hi: string[] | null;
    est_rows: number;
    plan_version: number;
  }>(
    store,
    `select n, lo, hi, est_rows, plan_version from ${store.table("chunk")} where direction = $1 and tbl = $2 order by n`,
    [direction, table],
  );
  return rows.map((row) => ({
    n: row.n,
    lo: row.lo ?? undefined,
    hi: row.hi ?? undefined,
    estRows: row.est_rows,
    planVersion: row.plan_version,
  }));
}

interface ProgressRow {
  tbl: string;
  chunks: number;
  done: number;
  failed: number;
  claimed: number;
  rows: number;
  est_rows: number;
  est_rows_left: number;
  started_at: Date | null;
  finished_at: Date | null;
  error: string | null;
  now: Date;
}

function toProgress(row: ProgressRow): TableProgress {
  const end = row.finished_at ?? row.now;
  return {
    table: row.tbl,
    chunks: row.chunks,
    done: row.done,
    failed: row.failed,
    claimed: row.claimed,
    rows: row.rows,
    estRows: row.est_rows,
    estRowsLeft: row.est_rows_left,
    startedAt: row.started_at ?? undefined,
    finishedAt: row.finished_at ?? undefined,
    ms: row.started_at === null ? 0 : Math.max(0, end.getTime() - row.started_at.getTime()),
    error: row.error ?? undefined,
  };
}
