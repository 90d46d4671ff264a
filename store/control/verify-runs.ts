import type { Direction } from "../../config/words.ts";
import { query } from "./open.ts";
import type { ControlStore } from "./open.ts";

export type VerifyState = "running" | "clean" | "dirty" | "failed";

/** What comparing found, of a chunk or a whole run. `in_flight`: differences that were gone after a fence. */
export interface VerifyCounts {
  readonly rows: number;
  readonly missing: number;
  readonly extra: number;
  readonly different: number;
  readonly inFlight: number;
  /** Rows that were written all the time and differed at every look, but moved along: no divergence. */
  readonly hot: number;
  readonly repaired: number;
}

/** One row that differs: which, how, and in which columns. */
export interface VerifyExample {
  readonly kind: "missing" | "extra" | "different";
  readonly key: Readonly<Record<string, string | null>>;
  readonly columns?: Readonly<
    Record<string, { readonly expected: string | null; readonly found: string | null }>
  >;
}

/** Whether what is on new would come back from old as it is: forward(reverse(row)) = row. */
export interface RoundTrip {
  /** Rows that forward makes of old, and that were compared with new's. */
  readonly compared: number;
  readonly failed: number;
  readonly examples: readonly (VerifyExample & { readonly table: string })[];
  /** Why it was not looked through to the end; then `failed` says nothing of the rest. */
  readonly error: string | null;
}

export interface VerifyRun extends VerifyCounts {
  readonly id: number;
  readonly direction: Direction;
  /** The epoch it began in: what it found says nothing about a later one. */
  readonly epoch: number;
  readonly state: VerifyState;
  readonly by: string;
  readonly repair: boolean;
  readonly tables: readonly string[];
  /** Whether it compares every mapped table: only such a run counts for a gate. */
  readonly allTables: boolean;
  readonly error: string | undefined;
  /** Of clean runs in reverse over all tables; undefined while it is not proved. */
  readonly roundTrip: RoundTrip | undefined;
  readonly startedAt: Date;
  readonly finishedAt: Date | undefined;
  /** ms since it started, by the server's clock: how old its first answer is. */
  readonly ageMs: number;
}

/** Opens a run; a run of the same direction that was left running is marked failed. Returns its id. */
export async function startVerifyRun(
  store: ControlStore,
  run: {
    readonly direction: Direction;
    readonly by: string;
    readonly repair: boolean;
    readonly tables: readonly string[];
    readonly allTables: boolean;
    /** Do not begin while another run is alive: for runs nobody asked for. */
    readonly yields?: boolean;
  },
): Promise<number | undefined> {
  if (run.yields === true && (await isVerifying(store))) return undefined;
  await query(
    store,
    `update ${store.table("verify_run")} set state = 'failed', error = 'interrupted', finished = clock_timestamp()
     where direction = $1 and state = 'running' and (not $2::bool or seen < clock_timestamp() - interval '1 minute')`,
    [run.direction, run.yields === true],
  );
  const rows = await query<{ id: number }>(
    store,
    `insert into ${store.table("verify_run")} (direction, epoch, by, repair, tables, all_tables)
     select $1, epoch, $2, $3, $4, $5 from ${store.table("migration")} returning id`,
    [run.direction, run.by, run.repair, run.tables, run.allTables],
  );
  return rows[0]?.id ?? 0;
}

/** Whether some run is alive: it was begun, or recorded something, within the last minute. */
export async function isVerifying(store: ControlStore): Promise<boolean> {
  const rows = await query(
    store,
    `select 1 from ${store.table("verify_run")} where state = 'running' and seen > clock_timestamp() - interval '1 minute' limit 1`,
  );
  return rows.length > 0;
}

/** How many chunks of a table a run will read: fewer recorded at its end, and it failed. */
export async function planVerifyTable(
  store: ControlStore,
  run: number,
  table: string,
  chunks: number,
): Promise<void> {
  await query(
    store,
    `update ${store.table("verify_run")} set planned = planned || jsonb_build_object($2::text, $3::int), seen = clock_timestamp() where id = $1`,
    [run, table, chunks],
  );
}

/** Records what comparing one chunk found (again: the later counts). False: the run is over, another took its place. */
export async function recordVerifyChunk(
  store: ControlStore,
  run: number,
  chunk: VerifyCounts & {
    readonly table: string;
    readonly n: number;
    readonly examples: readonly VerifyExample[];
    readonly ms: number;
  },
): Promise<boolean> {
  const recorded = await query(
    store,
    `with alive as (update ${store.table("verify_run")} set seen = clock_timestamp() where id = $1 and state = 'running' returning id)
     insert into ${store.table("verify_chunk")} (run, tbl, n, rows, missing, extra, different, in_flight, repaired, examples, ms, hot)
     select $1, $2, $3::int, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::bigint, $9::bigint, $10::jsonb, $11::float8, $12::bigint from alive
     on conflict (run, tbl, n) do update set rows = excluded.rows, missing = excluded.missing, extra = excluded.extra,
       different = excluded.different, in_flight = excluded.in_flight, repaired = excluded.repaired,
       examples = excluded.examples, ms = excluded.ms, hot = excluded.hot
     returning run`,
    [
      run,
      chunk.table,
      chunk.n,
      chunk.rows,
      chunk.missing,
      chunk.extra,
      chunk.different,
      chunk.inFlight,
      chunk.repaired,
      JSON.stringify(chunk.examples),
      chunk.ms,
      chunk.hot,
    ],
  );
  return recorded.length === 1;
}

/**
 * Closes a run with the sums of its chunks: clean if nothing differs, dirty if something does. With `error`, or if a table of
 * the run has fewer chunks recorded than were to be read, it failed, whatever was found: a range that was not read is no success.
 */
export async function finishVerifyRun(
  store: ControlStore,
  run: number,
  error?: string,
): Promise<VerifyRun> {
  const rows = await query<RunRow>(
    store,
    `update ${store.table("verify_run")} r set finished = clock_timestamp(), error = coalesce($2, s.unread),
       rows_compared = s.rows, missing = s.missing, extra = s.extra, different = s.different, in_flight = s.in_flight,
       repaired = s.repaired, hot = s.hot,
       state = case when coalesce($2, s.unread) is not null then 'failed' when s.missing + s.extra + s.different = 0 then 'clean' else 'dirty' end
     from (select coalesce(sum(rows), 0) as rows, coalesce(sum(missing), 0) as missing, coalesce(sum(extra), 0) as extra,
             coalesce(sum(different), 0) as different, coalesce(sum(in_flight), 0) as in_flight,
             coalesce(sum(repaired), 0) as repaired, coalesce(sum(hot), 0) as hot,
             (select 'not compared: ' || string_agg(t, ', ')
              from ${store.table("verify_run")} v cross join lateral unnest(v.tables) t
              where v.id = $1 and (select count(*) from ${store.table("verify_chunk")} c where c.run = $1 and c.tbl = t and c.n >= 0)
                < greatest(1, coalesce((v.planned ->> t)::int, 1))) as unread
           from ${store.table("verify_chunk")} where run = $1) s
     where r.id = $1 and r.state = 'running'
     returning ${COLUMNS}`,
    [run, error ?? null],
  );
  const row = rows[0] ?? (await readRun(store, "id = $1", [run]));
  if (row === undefined) throw new Error(`verify run ${run} does not exist`);
  return toRun(row);
}

/** Adds to a run what its round trip found. */
export async function recordRoundTrip(
  store: ControlStore,
  run: number,
  roundTrip: RoundTrip,
): Promise<VerifyRun> {
  const rows = await query<RunRow>(
    store,
    `update ${store.table("verify_run")} r set round_trip = $2 where id = $1 returning ${COLUMNS}`,
    [run, JSON.stringify(roundTrip)],
  );
  if (rows[0] === undefined) throw new Error(`verify run ${run} does not exist`);
  return toRun(rows[0]);
}

/** The last run of an epoch with a round trip that was looked through to its end, or had failures. */
export async function lastRoundTrip(
  store: ControlStore,
  epoch: number,
): Promise<VerifyRun | undefined> {
  const row = await readRun(
    store,
    `direction = 'reverse' and epoch = $1 and (round_trip->'error' = 'null' or (round_trip->>'failed')::bigint > 0)`,
    [epoch],
  );
  return row === undefined ? undefined : toRun(row);
}

/** The last run of a direction, running or not; with `onlyClean` the last clean one over all tables. */
export async function lastVerifyRun(
  store: ControlStore,
  direction: Direction,
  options: { readonly onlyClean?: boolean } = {},
): Promise<VerifyRun | undefined> {
  const clean = options.onlyClean === true ? "and r.state = 'clean' and r.all_tables" : "";
  const row = await readRun(store, `direction = $1 ${clean}`, [direction]);
  return row === undefined ? undefined : toRun(row);
}

/** Examples of a run, most useful first: at most `limit`. */
export async function readVerifyExamples(
  store: ControlStore,
  run: number,
  limit = 20,
): Promise<(VerifyExample & { readonly table: string })[]> {
  const rows = await query<{ tbl: string; example: VerifyExample }>(
    store,
    `select tbl, example from ${store.table("verify_chunk")} cross join lateral jsonb_array_elements(examples) as example
     where run = $1 order by tbl, n limit $2`,
    [run, limit],
  );
  return rows.map((row) => ({ table: row.tbl, ...row.example }));
}

const COLUMNS = `r.id, r.direction, r.epoch, r.state, r.by, r.repair, r.tables, r.all_tables, r.rows_compared, r.missing, r.extra, r.different,
  r.in_flight, r.hot, r.repaired, r.error, r.round_trip, r.started, r.finished,
  (extract(epoch from clock_timestamp() - r.started) * 1000)::float8 as age_ms`;

async function readRun(
  store: ControlStore,
  where: string,
  values: readonly unknown[],
): Promise<RunRow | undefined> {
  const rows = await query<RunRow>(
    store,
    `select ${COLUMNS} from ${store.table("verify_run")} r where ${where} order by id desc limit 1`,
    values,
  );
  return rows[0];
}

interface RunRow {
  id: number;
  direction: Direction;
  epoch: number;
  state: VerifyState;
  by: string;
  repair: boolean;
  tables: string[];
  all_tables: boolean;
  rows_compared: number;
  missing: number;
  extra: number;
  different: number;
  in_flight: number;
  hot: number;
  repaired: number;
  error: string | null;
  round_trip: RoundTrip | null;
  started: Date;
  finished: Date | null;
  age_ms: number;
}

function toRun(row: RunRow): VerifyRun {
  return {
    id: row.id,
    direction: row.direction,
    epoch: row.epoch,
    state: row.state,
    by: row.by,
    repair: row.repair,
    tables: row.tables,
    allTables: row.all_tables,
    rows: row.rows_compared,
    missing: row.missing,
    extra: row.extra,
    different: row.different,
    inFlight: row.in_flight,
    hot: row.hot,
    repaired: row.repaired,
    error: row.error ?? undefined,
    roundTrip: row.round_trip ?? undefined,
    startedAt: row.started,
    finishedAt: row.finished ?? undefined,
    ageMs: Math.max(0, row.age_ms),
  };
}
