import { alikeOnBothServers } from "./alike.ts";
import { castExpression } from "./compile-checks.ts";
import { type Copied, copyRows } from "./copy-rows.ts";
import {
  aliasOf,
  bareColumn,
  type Driver,
  type MappedColumn,
  type Mapping,
  mayRepeat,
  type Reader,
  rowsTravel,
} from "./mapping.ts";
import { ident, literal, relation } from "./quote.ts";
import { sqlState } from "./session.ts";
import { run, runBatch, runPrepared } from "./statement.ts";
import type { CopyPace } from "./stretch.ts";
import type { SyncContext } from "./sync.ts";
import {
  equal,
  type KeyRange,
  list,
  sourceByRange,
  toColumnArrays,
  unnestRelation,
} from "./sync-sql.ts";
import { runOnceInSync } from "./travel.ts";

/** Enough to see that a chunk was copied before; the mirror may have brought others. */
const PROBED_ROWS = 100;
const UNIQUE_VIOLATION = "23505";

/** What the source is asked for, in the order of the mapping's columns. */
interface Items {
  readonly columns: readonly string[];
  /** Something is computed there: names must mean what they mean on the target, which they do in pg_catalog. */
  readonly computed: boolean;
}

/** By mapping, which is made anew whenever a session of a sync is opened. Undefined: its rows have to be staged. */
const known = new WeakMap<Mapping, Items | undefined>();

/**
 * Copies the rows of a chunk from the source's table into the target's, without a table in between: where columns are carried
 * over as they are, or computed in a way that both servers do alike, and where none of them is there yet. Call as `mergeChunk`
 * does. Undefined: this is not such a chunk, and nothing was changed.
 */
export async function copyDirectly(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  range: KeyRange,
  pace: CopyPace | undefined,
): Promise<Copied | undefined> {
  const [mapping] = reader.mappings;
  if (mapping === undefined || !isPlain(context, driver, reader, mapping)) return undefined;
  if (!known.has(mapping)) known.set(mapping, await itemsOf(context, driver, reader, mapping));
  const items = known.get(mapping);
  if (items === undefined) return undefined;
  const from = `${sourceByRange(driver, reader, context.compiled.sourceSchema, range)} as ${aliasOf(driver)}`;
  const path = items.computed ? ["set local search_path to pg_catalog"] : [];
  try {
    await runBatch(context.source, ["begin isolation level read committed", ...path]);
    return (await someExist(context, mapping, items, from))
      ? undefined
      : await copy(context, mapping, { items, from, pace });
  } finally {
    // A broken connection has ended it; the first error is the one that matters.
    await run(context.source, "commit").catch(() => {});
  }
}

interface DirectCopy {
  readonly items: Items;
  readonly from: string;
  readonly pace: CopyPace | undefined;
}

/** The stripe keeps mirrors out; a row that is there all the same breaks a unique key, and the chunk is staged. */
async function copy(
  context: SyncContext,
  mapping: Mapping,
  { items: { columns }, from, pace }: DirectCopy,
): Promise<Copied | undefined> {
  const { target } = context;
  const names = list(mapping.columns.map(({ name }) => name));
  await run(target, "savepoint cf_copy");
  try {
    const copied = await copyRows(context, {
      select: `select ${columns.join(", ")} from ${from}`,
      into: `${relation(mapping.target.schema, mapping.target.name)} (${names})`,
      binary: true,
      pace,
    });
    await run(target, "release savepoint cf_copy");
    return copied;
  } catch (error) {
    if (sqlState(error) !== UNIQUE_VIOLATION) throw error;
    await run(target, "rollback to savepoint cf_copy");
    return undefined;
  }
}

async function someExist(
  context: SyncContext,
  mapping: Mapping,
  { columns }: Items,
  from: string,
): Promise<boolean> {
  const { source, target } = context;
  const key = mapping.columns
    .map((column, i) => ({ ...column, item: columns[i] ?? "null" }))
    .filter(({ name }) => mapping.key.includes(name));
  const texts = key.map(({ item }) => `(${item})::text`).join(", ");
  const sql = `select ${texts} from ${from} limit ${PROBED_ROWS}`;
  const rows = await runOnceInSync(context, source, sql);
  const types = key.map(({ name, targetBaseType: type }) => ({ name, type }));
  const [found] = await runPrepared(
    target,
    `select coalesce(bool_or(exists (select from ${relation(mapping.target.schema, mapping.target.name)} cf_t
       where ${equal(mapping.key, "cf_t", "cf_k")})), false)::text from ${unnestRelation(types, 1)} cf_k`,
    toColumnArrays(rows, types.length),
  );
  return found?.[0] === "true";
}

/** One mapping of a table between two servers that keeps every row. */
function isPlain(context: SyncContext, driver: Driver, reader: Reader, mapping: Mapping): boolean {
  const { compiled } = context;
  return (
    rowsTravel(compiled, reader) &&
    !compiled.sameDatabase &&
    reader.transform === undefined &&
    reader.binary &&
    !mayRepeat(driver, reader) &&
    reader.mappings.length === 1 &&
    mapping.where === undefined &&
    mapping.rejects.length === 0 &&
    mapping.own.kind === "columns"
  );
}

async function itemsOf(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  mapping: Mapping,
): Promise<Items | undefined> {
  if (!(await takesCopy(context, mapping))) return undefined;
  const carried = mapping.columns.map((column) => carriedColumn(driver, reader, column));
  const computed = mapping.columns.filter((_, i) => carried[i] === undefined).map(castExpression);
  if (computed.length > 0 && !(await alikeOnBothServers(context, driver, reader, computed)))
    return undefined;
  const columns = mapping.columns.map((column, i) => {
    const name = carried[i];
    return name === undefined ? castExpression(column) : `${aliasOf(driver)}.${ident(name)}`;
  });
  return { columns, computed: computed.length > 0 };
}

/** The source column that a column is, if it is nothing but one of the same type. A length or a scale COPY sees to, as an insert does. */
function carriedColumn(driver: Driver, reader: Reader, column: MappedColumn): string | undefined {
  const name = bareColumn(column.expression, driver);
  const there = reader.columns.find((candidate) => candidate.name === name);
  return there !== undefined && withoutModifier(there.type) === column.castType ? name : undefined;
}

/** In a quoted name brackets are part of the name. Without a length Postgres calls `character(n)` by another name. */
function withoutModifier(type: string): string {
  return type.includes('"')
    ? type
    : type.replace(/\([\d,-]+\)/, "").replace(/^character(?! varying)/, "bpchar");
}

/** COPY passes rules by, and row security refuses it. */
async function takesCopy({ target }: SyncContext, { target: table }: Mapping): Promise<boolean> {
  const [row] = await run(
    target,
    `select (relkind in ('r', 'p') and not relhasrules and not row_security_active(oid))::text
     from pg_class where oid = ${literal(relation(table.schema, table.name))}::regclass`,
  );
  return row?.[0] === "true";
}
