import type pg from "pg";
import { messageOf, type PlanIssue } from "../../config/errors.ts";
import { aliasOf, type Driver, type Mapping, type ReaderColumn } from "./mapping.ts";
import { ident } from "./quote.ts";
import { isFaultOfStatement, sqlState } from "./session.ts";

/** What the server made up for itself ends here; types and functions above are somebody's own. */
export const FIRST_OWN_OID = 16_384;

/**
 * The name under which each type is known to `client`'s server, or undefined. A type of the other side's schema is
 * looked for under its own name first, then by its bare name through the search_path.
 */
export async function resolveTypes(
  client: pg.ClientBase,
  columns: readonly { readonly name: string; readonly type: string }[],
  schema: string,
): Promise<(string | undefined)[]> {
  const { rows } = await client.query({
    text: `select coalesce(
             case when to_regtype(t.full_name) is not null then t.full_name end,
             case when to_regtype(t.bare) is not null then t.bare end)
           from (select full_name, position,
                   case when starts_with(full_name, quote_ident($2) || '.')
                        then substr(full_name, length(quote_ident($2)) + 2) else full_name end as bare
                 from unnest($1::text[]) with ordinality as u(full_name, position)) t order by position`,
    values: [columns.map((column) => column.type), schema],
    rowMode: "array",
  });
  return (rows as [string | null][]).map(([name]) => name ?? undefined);
}

/**
 * What each type is made of, down to types that Postgres brings: two servers may call different things by one name, and what one
 * sends as bytes the other may take for something else without noticing. Undefined: as bytes it cannot be sent, or is the number
 * of an object that has another number elsewhere (`regclass`).
 */
export async function structureOfTypes(
  client: pg.ClientBase,
  types: readonly (string | undefined)[],
): Promise<(string | undefined)[]> {
  const { rows } = await client.query({
    text: `with recursive part(position, path, oid) as (
             select position, '', to_regtype(name)::oid from unnest($1::text[]) with ordinality as u(name, position)
             union all
             select part.position, part.path || inner_type.step, inner_type.oid
             from part join pg_type t on t.oid = part.oid and (t.oid >= ${FIRST_OWN_OID} or t.typcategory = 'A')
             cross join lateral (
               select 'domain/' as step, t.typbasetype as oid where t.typtype = 'd'
               union all select 'array/', t.typelem where t.typcategory = 'A' and t.typelem <> 0
               union all select 'range/', r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
               union all select 'field ' || row_number() over (order by a.attnum) || '/', a.atttypid
                 from pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
             ) inner_type
           )
           select (select case when bool_and(t.typsend <> 0 and t.typreceive <> 0 and not (t.oid < ${FIRST_OWN_OID} and t.typname like 'reg%'))
                          then string_agg(part.path || t.typname, ',' order by part.path) end
                   from part join pg_type t on t.oid = part.oid where part.position = u.position)
           from generate_series(1, cardinality($1::text[])) as u(position) order by u.position`,
    values: [types.map((type) => type ?? null)],
    rowMode: "array",
  });
  return (rows as [string | null][]).map(([structure]) => structure ?? undefined);
}

/** Names and types of a query's columns. */
export async function describeQuery(
  client: pg.ClientBase,
  query: string,
): Promise<{ name: string; type: string; typeKind: string }[]> {
  const { fields } = await client.query({
    text: `select * from (${query}\n) q limit 0`,
    rowMode: "array",
  });
  const { rows } = await client.query({
    text: `select format_type(f.oid, f.modifier), t.typtype::text
           from unnest($1::oid[], $2::int[]) with ordinality as f(oid, modifier, position) join pg_type t on t.oid = f.oid
           order by position`,
    values: [
      fields.map((field) => field.dataTypeID),
      fields.map((field) => field.dataTypeModifier),
    ],
    rowMode: "array",
  });
  return fields.map((field, i) => {
    const [type, typeKind] = rows[i] as [string, string];
    return { name: field.name, type, typeKind };
  });
}

/** An empty relation in the shape of a reader's rows, under the name that expressions use. */
export function emptyRelation(driver: Driver, columns: readonly ReaderColumn[]): string {
  const list = columns.map((column) => `null::${column.type} as ${ident(column.name)}`).join(", ");
  return `(select ${list}) as ${aliasOf(driver)}`;
}

/** Runs the expressions of a mapping over no rows, and names each that fails. */
export async function checkMapping(
  client: pg.ClientBase,
  driver: Driver,
  columns: readonly ReaderColumn[],
  mapping: Mapping,
  issues: PlanIssue[],
): Promise<void> {
  const from = emptyRelation(driver, columns);
  const expressions = mapping.columns.map(castExpression);
  const alone = (await runTogether(client, from, expressions)) ? [] : mapping.columns;
  const parts: [string, string][] = [
    ...alone.map((column): [string, string] => [
      `${mapping.path}.set.${column.name}`,
      `select ${castExpression(column)} from ${from} limit 0`,
    ]),
    ...mapping.rejects.map(({ reason, condition }): [string, string] => [
      `${mapping.path}.reject.${reason}`,
      `select 1 from ${from} where ${condition} limit 0`,
    ]),
  ];
  if (mapping.where !== undefined) {
    parts.push([`${mapping.path}.where`, `select 1 from ${from} where ${mapping.where} limit 0`]);
  }
  for (const [path, sql] of parts) {
    try {
      await client.query({ text: `explain ${sql}`, rowMode: "array" });
    } catch (error) {
      if (!isFaultOfStatement(error)) throw error;
      issues.push({
        path,
        message: `does not run on the new database: ${messageOf(error)}. It sees the columns ${columns.map((c) => c.name).join(", ")}`,
      });
    }
  }
}

/**
 * Whether all run in one statement: each alone would be a statement as wide as the table, for every column of it. Two
 * expressions with a quote too few may make one that runs, so what comes back is counted.
 */
async function runTogether(
  client: pg.ClientBase,
  from: string,
  expressions: readonly string[],
): Promise<boolean> {
  try {
    const result = await client.query({
      text: `select ${expressions.join(",\n")} from ${from} limit 0`,
      rowMode: "array",
    });
    return !Array.isArray(result) && result.fields.length === expressions.length;
  } catch (error) {
    if (!isFaultOfStatement(error)) throw error;
    return false;
  }
}

export function castExpression(column: {
  readonly expression: string;
  readonly castType: string | undefined;
}): string {
  return column.castType === undefined
    ? `(${column.expression})`
    : `(${column.expression})::${column.castType}`;
}

/** true if an expression needs nothing but the key columns, else why not. */
export async function isKeyOnly(
  client: pg.ClientBase,
  driver: Driver,
  columns: readonly ReaderColumn[],
  expression: string,
): Promise<true | string> {
  const keyOnly = columns.filter((column) => driver.table.key.includes(column.name));
  try {
    await client.query({
      text: `explain select ${expression} from ${emptyRelation(driver, keyOnly)} limit 0`,
      rowMode: "array",
    });
    return true;
  } catch (error) {
    if (!isFaultOfStatement(error)) throw error;
    // Only "no such column" answers the question; anything else is a broken expression, told as it is.
    return sqlState(error) === "42703"
      ? `it uses a column that is not part of the key (${messageOf(error)})`
      : messageOf(error);
  }
}
