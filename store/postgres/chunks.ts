import type pg from "pg";
import type { Side } from "../../config/words.ts";
import { boundariesSql } from "./boundaries.ts";
import { chunkLock, STRIPES } from "./locks.ts";
import type { CompiledDirection, Driver } from "./mapping.ts";
import { ident, relation } from "./quote.ts";
import { run, runPrepared } from "./statement.ts";
import { keyTypes, toColumnArrays, unnestRelation, type KeyRange } from "./sync-sql.ts";

/**
 * Chunks: key ranges of a source table. Boundaries are real keys, kept in a typed table on the source, in the order of
 * the key's own index: the one place that says which chunk a key is in, so that two servers with different collations
 * can never disagree. A table without a plan is one chunk, number 0.
 *
 * Re-planning writes the new boundaries under a new version and then, holding every stripe of the table on the target,
 * switches the version: a sync that computed stripes with the old version notices after locking.
 */
export interface Chunk extends KeyRange {
  readonly n: number;
  readonly rows: number;
}

function chunkTable(side: Side, driver: Driver): string {
  return relation("crossfade", `chunk_${side}_${driver.number}`);
}

/** Plans the chunks of a table and makes the plan current. Returns it with its version. */
export async function planChunks(
  compiled: CompiledDirection,
  driver: Driver,
  source: pg.ClientBase,
  target: pg.ClientBase,
  rowsPerChunk: number,
): Promise<{ version: number; chunks: Chunk[] }> {
  const version = (await currentVersion(compiled, driver, target)) + 1;
  const chunks = await writeBoundaries(compiled, driver, source, version, rowsPerChunk);
  await switchVersion(compiled, driver, target, version);
  await run(source, `delete from ${chunkTable(compiled.source, driver)} where version < $1::int`, [
    version,
  ]);
  return { version, chunks };
}

async function currentVersion(
  compiled: CompiledDirection,
  driver: Driver,
  target: pg.ClientBase,
): Promise<number> {
  const rows = await run(
    target,
    "select version::text from crossfade.chunk_plan where direction = $1 and tbl = $2",
    [compiled.direction, driver.number],
  );
  return Number(rows[0]?.[0] ?? 0);
}

async function writeBoundaries(
  compiled: CompiledDirection,
  driver: Driver,
  source: pg.ClientBase,
  version: number,
  rowsPerChunk: number,
): Promise<Chunk[]> {
  const table = chunkTable(compiled.source, driver);
  const from = relation(compiled.sourceSchema, driver.name);
  const key = driver.key.map((column) => ident(column.name)).join(", ");
  const texts = driver.key.map((column) => `b.${ident(column.name)}`).join(", ");
  // `select … where false` copies types and collations exactly.
  await run(
    source,
    `create table if not exists ${table} as select 0::int as version, 0::int as n, ${key} from ${from} where false`,
  );
  await run(
    source,
    `create unique index if not exists ${ident(`chunk_${compiled.source}_${driver.number}_key`)} on ${table} (version, ${key})`,
  );
  await run(source, `delete from ${table} where version >= $1::int`, [version]);
  await run(
    source,
    `insert into ${table} select $1::int, b.* from (${await boundariesSql(source, compiled, driver, rowsPerChunk)}) b`,
    [version],
  );
  const rows = await run(
    source,
    `select b.n::text, ${texts} from ${table} b where version = $1::int order by b.n`,
    [version],
  );
  const [total] = await run(source, `select count(*)::text from ${from}`);
  return toChunks(rows, Number(total?.[0] ?? 0), rowsPerChunk);
}

function toChunks(
  boundaries: readonly (readonly (string | null)[])[],
  total: number,
  rowsPerChunk: number,
): Chunk[] {
  const lows = [null, ...boundaries.map(([, ...key]) => key as string[])];
  return lows.map((lo, n) => ({
    n,
    lo,
    hi: lows[n + 1] ?? null,
    rows: n + 1 < lows.length ? rowsPerChunk : Math.max(0, total - n * rowsPerChunk),
  }));
}

async function switchVersion(
  compiled: CompiledDirection,
  driver: Driver,
  target: pg.ClientBase,
  version: number,
): Promise<void> {
  const { classId } = chunkLock(compiled.direction, driver.number, 0);
  await target.query("begin");
  try {
    await run(
      target,
      `select count(*) from (select pg_advisory_xact_lock($1::int, o) from (select generate_series($2::int, $3::int) as o order by 1) s) l`,
      [classId, driver.number * STRIPES, driver.number * STRIPES + STRIPES - 1],
    );
    await run(
      target,
      `insert into crossfade.chunk_plan (direction, tbl, version) values ($1, $2, $3)
       on conflict (direction, tbl) do update set version = excluded.version`,
      [compiled.direction, driver.number, version],
    );
    await target.query("commit");
  } catch (error) {
    await target.query("rollback").catch(() => {});
    throw error;
  }
}

/**
 * Ranges for reading a table piece by piece, from its keys as they are now; for comparing, where nothing is locked and
 * no ledger is kept.
 */
export async function chunkRanges(
  compiled: CompiledDirection,
  driver: Driver,
  source: pg.ClientBase,
  rowsPerChunk: number,
): Promise<Chunk[]> {
  const boundaries = await boundariesSql(source, compiled, driver, rowsPerChunk);
  const rows = await run(source, `select * from (${boundaries}) b order by cf_n`);
  return toChunks(rows, rows.length * rowsPerChunk, rowsPerChunk);
}

/** The stripes of the chunks that `keys` fall in. Runs on the source. */
export async function stripesOf(
  compiled: CompiledDirection,
  driver: Driver,
  source: pg.ClientBase,
  keys: readonly (readonly string[])[],
  version: number,
): Promise<number[]> {
  return [...new Set(await stripeOfEach(compiled, driver, source, keys, version))];
}

/** The stripe of each key's chunk, in the order of `keys`. Runs on the source. */
export async function stripeOfEach(
  compiled: CompiledDirection,
  driver: Driver,
  source: pg.ClientBase,
  keys: readonly (readonly string[])[],
  version: number,
): Promise<number[]> {
  if (version === 0) return keys.map(() => 0);
  const columns = keyTypes(driver);
  const names = columns.map((column) => ident(column.name));
  const numbered = unnestRelation([...columns, { name: "cf_n", type: "int" }], 1);
  const [row] = await runPrepared(
    source,
    `select json_agg(coalesce((
       select c.n from ${chunkTable(compiled.source, driver)} c
       where c.version = ${Number(version)} and (${names.map((name) => `c.${name}`).join(", ")}) <= (${names.map((name) => `k.${name}`).join(", ")})
       order by ${names.map((name) => `c.${name} desc`).join(", ")} limit 1), 0) % ${STRIPES} order by k.cf_n)
     from ${numbered} as k`,
    [...toColumnArrays(keys, columns.length), keys.map((_, i) => String(i))],
  );
  return JSON.parse(row?.[0] ?? "[]") as number[];
}

export function stripeOfChunk(n: number): number {
  return n % STRIPES;
}
