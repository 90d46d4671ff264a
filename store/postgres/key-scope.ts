import type pg from "pg";
import {
  type Driver,
  type Mapping,
  type Own,
  type Reader,
  type ReaderTransform,
  rowsTravel,
} from "./mapping.ts";
import { ident } from "./quote.ts";
import { batchStatement, runBatch, type TextRow } from "./statement.ts";
import type { SyncContext } from "./sync.ts";
import {
  type KeyRange,
  keyTexts,
  type MappedOptions,
  mappedSelect,
  ownedSelect,
  sourceByKeys,
  sourceByRange,
  storedType,
  toColumnArrays,
  unnestRelation,
} from "./sync-sql.ts";
import { outcomeOf, TransformFailed, transformRows } from "./transform.ts";
import { keepWaiting, runInSync, runOnceInSync } from "./travel.ts";

/**
 * The relations of a key scope: few keys travel as text arrays, and what is made of them is a query on the target.
 * Sync writes them, verify compares them.
 */
export type Key = readonly string[];

/** Keys in scope, with the source rows that travelled (none when expressions run where the rows are). */
export interface KeyScope {
  readonly keys: readonly Key[];
  readonly rows: readonly TextRow[];
}

/** A mapping with what it reads. */
export interface Part {
  readonly driver: Driver;
  readonly reader: Reader;
  readonly mapping: Mapping;
}

/** SQL with its parameters. */
export interface Fragment {
  readonly sql: string;
  readonly values: readonly (readonly (string | null)[])[];
}

/**
 * The source rows of the keys, where they have to travel; a module that makes something of them has been called. Reads now. `checked`: in the same round trip, after them, looks
 * whether DDL changed the tables of the source; throws SHAPE_CHANGED.
 */
export async function readRows(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  keys: readonly Key[],
  checked = false,
): Promise<TextRow[]> {
  if (!rowsTravel(context.compiled, reader)) return [];
  const rows = await readNow(context, driver, reader, keys, checked);
  const { transform } = reader;
  if (transform === undefined) return rows;
  const names = reader.columns.map((column) => column.name);
  await keepWaiting(context, () => transformRows(transform, names, rows));
  return rows;
}

async function readNow(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  keys: readonly Key[],
  checked: boolean,
): Promise<TextRow[]> {
  const { source, shapes } = context;
  const sql = `select * from ${sourceByKeys(driver, reader, context.compiled.sourceSchema, 1)} cf_s`;
  const values = toColumnArrays(keys, driver.key.length);
  if (!checked) return runInSync(context, source, sql, values);
  const [rows, token] = await keepWaiting(context, async () =>
    runBatch(source, [await batchStatement(source, sql, values), await shapes.statement("source")]),
  );
  await shapes.judge("source", token);
  return rows ?? [];
}

/** Keys of the rows of a range of the driving table. */
export async function keysInRange(
  context: SyncContext,
  driver: Driver,
  range: KeyRange,
): Promise<Key[]> {
  const names = driver.key.map((column) => `cf_s.${ident(column.name)}`).join(", ");
  const bare = {
    query: undefined,
    columns: driver.key.map((column) => ({ name: column.name, type: column.baseType })),
    binary: true,
    mappings: [],
  };
  const rows = sourceByRange(driver, bare, context.compiled.sourceSchema, range);
  return (await runOnceInSync(
    context,
    context.source,
    `select ${names} from ${rows} cf_s`,
  )) as string[][];
}

/** Whether rows that the reader reads pass through this process, as they are or as what is made of them. */
export function travels({ compiled }: SyncContext, reader: Reader): boolean {
  return !compiled.sameDatabase || rowsTravel(compiled, reader);
}

export function keyOf(driver: Driver, reader: Reader, row: TextRow): string[] {
  return driver.key.map(
    (column) => row[reader.columns.findIndex((candidate) => candidate.name === column.name)] ?? "",
  );
}

/** Where expressions run. */
export function mapperOf(context: SyncContext): pg.Client {
  return context.compiled.direction === "forward" ? context.target : context.source;
}

/** The raw rows of a scope as a relation on the server where expressions run; its parameters start at `$1`. */
export function rawRelation(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  scope: KeyScope,
): Fragment {
  if (reader.transform !== undefined)
    return madeRelation(driver, reader, reader.transform, scope.rows);
  return rowsTravel(context.compiled, reader)
    ? {
        sql: unnestRelation(reader.columns, 1),
        values: toColumnArrays(scope.rows, reader.columns.length),
      }
    : {
        sql: sourceByKeys(driver, reader, context.compiled.sourceSchema, 1),
        values: toColumnArrays(scope.keys, driver.key.length),
      };
}

/** What a module made of the rows, with the keys they come from. Throws TransformFailed if it failed on one of them. */
function madeRelation(
  driver: Driver,
  reader: Reader,
  { columns }: ReaderTransform,
  rows: readonly TextRow[],
): Fragment {
  const made = rows.flatMap((row) => {
    const outcome = outcomeOf(row);
    if (outcome.kind === "failed") throw new TransformFailed(outcome.reason);
    if (outcome.kind === "rejected") return [];
    const key = keyOf(driver, reader, row);
    return outcome.rows.map((one) => [...one, ...key]);
  });
  return { sql: unnestRelation(columns, 1), values: toColumnArrays(made, columns.length) };
}

/** What the mapping makes, as a query on the target. */
export async function mappedRelation(
  context: SyncContext,
  { driver, reader, mapping }: Part,
  scope: KeyScope,
  options: MappedOptions = {},
): Promise<Fragment> {
  const raw = rawRelation(context, driver, reader, scope);
  const inPlace = context.compiled.direction === "forward" || context.compiled.sameDatabase;
  const select = mappedSelect(
    driver,
    mapping,
    raw.sql,
    inPlace ? options : { ...options, stored: false },
  );
  if (inPlace) return { sql: select, values: raw.values };
  const made = await runInSync(context, context.source, select, raw.values);
  const columns = mapping.columns.map((column) => ({
    name: column.name,
    type: options.stored === true ? storedType(column) : column.targetBaseType,
  }));
  if (options.withKeys === true) columns.push(...keyTexts(driver));
  return {
    sql: `select * from ${unnestRelation(columns, 1)} cf_m`,
    values: toColumnArrays(made, columns.length),
  };
}

export interface OwnedOptions {
  /** Number of the first parameter. */
  readonly first: number;
  readonly withKeys?: boolean;
}

/** The own values of the keys, as a query on the target. */
export async function ownedRelation(
  context: SyncContext,
  driver: Driver,
  own: Own,
  keys: readonly Key[],
  options: OwnedOptions,
): Promise<Fragment> {
  if (own.kind === "none") return { sql: "", values: [] };
  const { first, withKeys = false } = options;
  const keyArrays = toColumnArrays(keys, driver.key.length);
  if (context.compiled.direction === "forward" || context.compiled.sameDatabase) {
    return {
      sql: ownedSelect(driver, own.columns, unnestRelation(driver.mapperKey, first), withKeys),
      values: keyArrays,
    };
  }
  const columns = own.columns.map((column) => ({
    name: column.column,
    type: column.targetBaseType,
  }));
  if (withKeys) columns.push(...keyTexts(driver));
  const values = own.columns.every((column) => column.keyPosition !== undefined)
    ? [
        ...own.columns.map((column) => keyArrays[column.keyPosition ?? 0] ?? []),
        ...(withKeys ? keyArrays : []),
      ]
    : toColumnArrays(
        await runInSync(
          context,
          context.source,
          ownedSelect(driver, own.columns, unnestRelation(driver.mapperKey, 1), withKeys),
          keyArrays,
        ),
        columns.length,
      );
  return { sql: `select distinct * from ${unnestRelation(columns, first)} cf_o`, values };
}
