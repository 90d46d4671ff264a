import { castExpression } from "./compile-checks.ts";
import {
  aliasOf,
  type Driver,
  type MappedColumn,
  type Mapping,
  type OwnColumn,
  type Reader,
} from "./mapping.ts";
import { ident, literal, relation } from "./quote.ts";

/**
 * The statements of a sync, built from the compiled mappings. Names starting with `cf_` are ours; expressions of the
 * plan see only the alias of their own row, so nothing here can shadow a user's table.
 */

export interface TypedColumn {
  readonly name: string;
  readonly type: string;
}

/** Rows that arrive as one text array per column, typed: `$first`, `$first+1`, … */
export function unnestRelation(columns: readonly TypedColumn[], first: number): string {
  const items = columns.map((column, i) => `cf_u.a${i}::${column.type} as ${ident(column.name)}`);
  const params = columns.map((_, i) => `$${first + i}::text[]`);
  const names = columns.map((_, i) => `a${i}`);
  return `(select ${items.join(", ")} from unnest(${params.join(", ")}) as cf_u(${names.join(", ")}))`;
}

/** Columns to text arrays, in the order that `unnestRelation` expects. */
export function toColumnArrays(
  rows: readonly (readonly (string | null)[])[],
  width: number,
): (string | null)[][] {
  return Array.from({ length: width }, (_, column) => rows.map((row) => row[column] ?? null));
}

export function keyTypes(driver: Driver): TypedColumn[] {
  return driver.key.map((column) => ({ name: column.name, type: column.baseType }));
}

/** The source key as rows carry it to a target whose types are not the source's: it is only handed back. */
export function keyTexts(driver: Driver): TypedColumn[] {
  return driver.key.map((_, i) => ({ name: `cf_k${i}`, type: "text" }));
}

/** The source rows of a reader whose key is among the text arrays `$first…`. Runs on the source. */
export function sourceByKeys(
  driver: Driver,
  reader: Reader,
  sourceSchema: string,
  first: number,
): string {
  const base =
    reader.query === undefined ? relation(sourceSchema, driver.name) : `(${reader.query}\n)`;
  const list = reader.columns.map((column) => `cf_q.${ident(column.name)}`).join(", ");
  const [single] = driver.key;
  const condition =
    driver.key.length === 1 && single !== undefined
      ? // `= any` reaches the index through a grouped query too, where a join would not.
        `cf_q.${ident(single.name)} = any($${first}::text[]::${single.baseType}[])`
      : `(${driver.key.map((column) => `cf_q.${ident(column.name)}`).join(", ")}) in (select ${driver.key
          .map((_, i) => `cf_k.c${i}`)
          .join(", ")} from ${unnestRelation(
          driver.key.map((column, i) => ({ name: `c${i}`, type: column.baseType })),
          first,
        )} as cf_k)`;
  return `(select ${list} from ${base} as cf_q where ${condition})`;
}

/** Bounds of a chunk: `lo` inclusive, `hi` exclusive, null open; texts of the key columns. */
export interface KeyRange {
  readonly lo: readonly string[] | null;
  readonly hi: readonly string[] | null;
  /** SQL over the source row: only these, for comparing a part. */
  readonly where?: string;
}

/** The source rows of a reader within a range. Constants are spliced as literals: COPY takes no parameters. */
export function sourceByRange(
  driver: Driver,
  reader: Reader,
  sourceSchema: string,
  range: KeyRange,
): string {
  const base =
    reader.query === undefined ? relation(sourceSchema, driver.name) : `(${reader.query}\n)`;
  const list = reader.columns.map((column) => `cf_q.${ident(column.name)}`).join(", ");
  const tuple = `(${driver.key.map((column) => `cf_q.${ident(column.name)}`).join(", ")})`;
  const bound = (values: readonly string[]) =>
    `(${values.map((value, i) => `${literal(value)}::${driver.key[i]?.baseType ?? "text"}`).join(", ")})`;
  const conditions = [
    ...(range.lo === null ? [] : [`${tuple} >= ${bound(range.lo)}`]),
    ...(range.hi === null ? [] : [`${tuple} < ${bound(range.hi)}`]),
    ...(range.where === undefined ? [] : [`(${range.where}\n)`]),
  ];
  return `(select ${list} from ${base} as cf_q${conditions.length > 0 ? ` where ${conditions.join(" and ")}` : ""})`;
}

export interface MappedOptions {
  /** Adds the source key as cf_k0, cf_k1, … */
  readonly withKeys?: boolean;
  /** Casts to the stored type with its modifier, as an insert would, for comparing. */
  readonly stored?: boolean;
}

/** What a mapping makes of the rows in `raw` (a parenthesised relation): the target's columns. */
export function mappedSelect(
  driver: Driver,
  mapping: Mapping,
  raw: string,
  options: MappedOptions = {},
): string {
  const alias = aliasOf(driver);
  const items = mapping.columns.map((column) => {
    const cast = castExpression(column);
    return `${options.stored === true ? `(${cast})::${storedType(column)}` : cast} as ${ident(column.name)}`;
  });
  if (options.withKeys === true)
    items.push(...driver.key.map((key, i) => `${alias}.${ident(key.name)} as cf_k${i}`));
  const conditions = [
    ...(mapping.where === undefined ? [] : [`(${mapping.where}\n)`]),
    ...mapping.rejects.map(({ condition }) => `not coalesce((${condition}\n), false)`),
  ];
  return `select ${items.join(", ")} from ${raw} as ${alias}${conditions.length > 0 ? ` where ${conditions.join(" and ")}` : ""}`;
}

/**
 * The type a value is stored as, modifier included. An explicit cast to varchar(n) or bit(n) truncates where an insert
 * refuses, so those go without: such a row is never stored, and a comparison must not call it equal.
 */
export function storedType(column: MappedColumn): string {
  return /^(character varying|bit)/.test(column.targetType)
    ? column.targetBaseType
    : column.targetType;
}

/** Keys and reasons of the rows a mapping rejects. */
export function rejectedSelect(driver: Driver, mapping: Mapping, raw: string): string | undefined {
  if (mapping.rejects.length === 0) return undefined;
  const alias = aliasOf(driver);
  const reason = mapping.rejects
    .map(({ reason: why, condition }) => `when (${condition}\n) then ${literal(why)}`)
    .join(" ");
  const where = mapping.where === undefined ? "" : ` where (${mapping.where}\n)`;
  const keys = driver.key.map((key, i) => `${alias}.${ident(key.name)} as cf_k${i}`).join(", ");
  return `select * from (select ${keys}, case ${reason} end as cf_reason from ${raw} as ${alias}${where}) cf_r where cf_reason is not null`;
}

/** Keys for which `raw` has more than one row. */
export function repeatedSelect(driver: Driver, raw: string): string {
  const keys = driver.key.map((key) => `cf_s.${ident(key.name)}`).join(", ");
  return `select ${keys} from ${raw} cf_s group by ${keys} having count(*) > 1`;
}

/** The values of the own columns for the keys in `keys` (a parenthesised relation of the key columns), each once. */
export function ownedSelect(
  driver: Driver,
  own: readonly OwnColumn[],
  keys: string,
  withKeys = false,
): string {
  return `select distinct ${ownedItems(driver, own, withKeys)} from ${keys} as ${aliasOf(driver)}`;
}

/** The same as often as they come: for asking whether there is one. */
export function ownedValues(driver: Driver, own: readonly OwnColumn[], keys: string): string {
  return `select ${ownedItems(driver, own, false)} from ${keys} as ${aliasOf(driver)}`;
}

function ownedItems(driver: Driver, own: readonly OwnColumn[], withKeys: boolean): string {
  const items = own.map((column) => `${castExpression(column)} as ${ident(column.column)}`);
  if (withKeys)
    items.push(...driver.key.map((key, i) => `${aliasOf(driver)}.${ident(key.name)} as cf_k${i}`));
  return items.join(", ");
}

export const list = (names: readonly string[], prefix = ""): string =>
  names.map((name) => `${prefix}${ident(name)}`).join(", ");
/** Compares binary images: exact for every type, also those without equality. The casts keep it from being taken column by column. */
export const imageDiffers = (names: readonly string[], a: string, b: string): string =>
  `row(${list(names, a)})::record operator(pg_catalog.*<>) row(${list(names, b)})::record`;
export const equal = (names: readonly string[], a: string, b: string): string =>
  names.map((name) => `${a}.${ident(name)} = ${b}.${ident(name)}`).join(" and ");

export interface ApplyOptions {
  /** Delete all rows of the keys before writing: for keys whose unique values changed places. */
  readonly deleteFirst?: boolean;
}

/**
 * Makes the target equal `mapped` for the keys behind `owned`: rows of theirs that are not made any more go, the rest
 * is upserted on the mapping's key. One statement; the delete runs first, because the insert asks for its count.
 * Rows that are already as they should be are left alone (record image comparison: exact, and works for every type).
 */
export function applySql(
  mapping: Mapping,
  mapped: string,
  owned: string,
  options: ApplyOptions = {},
): string {
  const table = relation(mapping.target.schema, mapping.target.name);
  if (mapping.own.kind === "none") return shareSql(mapping, mapped);
  const own = mapping.own.columns.map((column) => column.column);
  const kept =
    options.deleteFirst === true
      ? ""
      : ` and not exists (select 1 from cf_mapped where ${equal(mapping.key, "cf_mapped", "cf_t")}${sameFixed(mapping)})`;
  return `with cf_mapped as materialized (${mapped}),
cf_gone as (delete from ${table} as cf_t using (${owned}) as cf_o where ${equal(own, "cf_t", "cf_o")}${kept} returning 1),
cf_put as (${insertSql(mapping, "select * from cf_mapped where (select count(*) from cf_gone) >= 0")} returning 1)
select (select count(*) from cf_gone), (select count(*) from cf_put)`;
}

/** Columns that no update can set: identity columns `generated always` outside of the key. */
const fixedColumns = (mapping: Mapping) =>
  mapping.columns
    .filter((column) => !column.updatable && !mapping.key.includes(column.name))
    .map((column) => column.name);

/** A row whose fixed columns differ is deleted and inserted again. */
function sameFixed(mapping: Mapping): string {
  const fixed = fixedColumns(mapping);
  return fixed.length === 0 ? "" : ` and not (${imageDiffers(fixed, "cf_mapped.", "cf_t.")})`;
}

/** Upserts `mapped` without looking for rows that are not made any more: for chunks. */
export function upsertSql(mapping: Mapping, mapped: string): string {
  if (mapping.own.kind === "none") return shareSql(mapping, mapped);
  const fixed = fixedColumns(mapping);
  if (fixed.length > 0) {
    const table = relation(mapping.target.schema, mapping.target.name);
    return `with cf_mapped as materialized (${mapped}),
cf_gone as (delete from ${table} as cf_t using cf_mapped where ${equal(mapping.key, "cf_t", "cf_mapped")} and ${imageDiffers(fixed, "cf_t.", "cf_mapped.")} returning 1),
cf_put as (${insertSql(mapping, "select * from cf_mapped where (select count(*) from cf_gone) >= 0")} returning 1)
select 0, (select count(*) from cf_put)`;
  }
  return `with cf_put as (${insertSql(mapping, mapped)} returning 1) select 0, (select count(*) from cf_put)`;
}

/** Inserts `mapped` as it is: a row whose key is there already makes it fail. */
export function plainInsertSql(mapping: Mapping, mapped: string): string {
  return `insert into ${relation(mapping.target.schema, mapping.target.name)} (${columnList(mapping)})
overriding system value select ${columnList(mapping)} from (${mapped}) cf_m`;
}

/** Whether any of the first rows of `mapped` has its key on the target. */
export function probeSql(mapping: Mapping, mapped: string, rows: number): string {
  const table = relation(mapping.target.schema, mapping.target.name);
  // A subquery for each of the few rows goes through the key's index, whatever the planner thinks of the table.
  return `select coalesce(bool_or(exists (select from ${table} as cf_t where ${equal(mapping.key, "cf_t", "cf_m")})), false)::text
from (select * from (${mapped}) cf_a limit ${Math.round(rows)}) cf_m`;
}

/** Shared rows: distinct, in key order (so that concurrent sessions lock in one order), never changed, never removed. */
function shareSql(mapping: Mapping, mapped: string): string {
  const key = list(mapping.key);
  return `with cf_put as (insert into ${relation(mapping.target.schema, mapping.target.name)} (${columnList(mapping)})
overriding system value select distinct on (${key}) ${columnList(mapping)} from (${mapped}) cf_m order by ${key}
on conflict (${key}) do nothing returning 1) select 0, (select count(*) from cf_put)`;
}

function insertSql(mapping: Mapping, rows: string): string {
  const updated = mapping.columns.filter((column) => column.updatable).map((column) => column.name);
  const action =
    updated.length === 0
      ? "do nothing"
      : `do update set ${updated.map((name) => `${ident(name)} = excluded.${ident(name)}`).join(", ")}
where ${imageDiffers(updated, "cf_t.", "excluded.")}`;
  return `insert into ${relation(mapping.target.schema, mapping.target.name)} as cf_t (${columnList(mapping)})
overriding system value select ${columnList(mapping)} from (${rows}) cf_m on conflict (${list(mapping.key)}) ${action}`;
}

function columnList(mapping: Mapping): string {
  return list(mapping.columns.map((column) => column.name));
}
