import type pg from "pg";
import { messageOf, type PlanIssue } from "../../config/errors.ts";
import { aliasOf, type Driver, type Mapping, type ReaderColumn } from "./mapping.ts";
import { ident } from "./quote.ts";
import { isFaultOfStatement, sqlState } from "./session.ts";

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
