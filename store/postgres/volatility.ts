import type pg from "pg";
import type { PlanIssue } from "../../config/errors.ts";
import { emptyRelation } from "./compile-checks.ts";
import { bareColumn, type CompiledDirection, type Driver, type Reader } from "./mapping.ts";
import { isFaultOfStatement } from "./session.ts";

/** Sessions of one direction: on its source, and where expressions run. */
export interface MappingSessions {
  readonly source: pg.ClientBase;
  readonly mapper: pg.ClientBase;
}

/**
 * A row is made again by every sync and every comparison: what comes out differently each time is never equal, and under
 * an `own` of its own it is another row each time. Postgres knows which functions are such: they are volatile.
 */
export async function volatileCalls(
  compiled: CompiledDirection,
  { source, mapper }: MappingSessions,
): Promise<PlanIssue[]> {
  const issues: PlanIssue[] = [];
  const look = async (client: pg.ClientBase, path: string, select: string) => {
    const found = await volatileFunctions(client, select);
    if (found.length > 0) issues.push({ path, message: describe(found) });
  };
  for (const driver of compiled.drivers) {
    for (const reader of driver.readers) {
      const path = reader.mappings[0]?.path ?? driver.name;
      if (reader.query !== undefined)
        await look(source, `${path}.from.query`, `select 1 from (${reader.query}\n) q`);
      for (const [at, select] of expressionsOf(driver, reader)) await look(mapper, at, select);
    }
  }
  return issues;
}

/** Each expression of the plan with its path; columns that are carried over as they are call nothing. */
function expressionsOf(driver: Driver, reader: Reader): (readonly [string, string])[] {
  const from = emptyRelation(driver, reader.columns);
  const value = (expression: string) => `select (${expression}\n) as v from ${from}`;
  const condition = (sql: string) => `select 1 from ${from} where ${sql}\n`;
  return reader.mappings.flatMap(({ path, columns, own, where, rejects }) => [
    ...columns
      .filter(({ expression }) => bareColumn(expression, driver) === undefined)
      .map(({ name, expression }) => [`${path}.set.${name}`, value(expression)] as const),
    ...(own.kind === "columns" ? own.columns : [])
      // What it says by default stands under `set` already.
      .filter(({ expression }) => !columns.some((column) => column.expression === expression))
      .map(({ column, expression }) => [`${path}.own.${column}`, value(expression)] as const),
    ...(where === undefined ? [] : [[`${path}.where`, condition(where)] as const]),
    ...rejects.map(
      ({ reason, condition: sql }) => [`${path}.reject.${reason}`, condition(sql)] as const,
    ),
  ]);
}

/**
 * What a select calls stands in no catalog where it is Postgres' own, but in the parsed form of a view of it; the view is
 * taken back at once.
 */
async function volatileFunctions(client: pg.ClientBase, select: string): Promise<string[]> {
  await client.query("begin");
  try {
    await client.query(`create temporary view cf_volatile as ${select}`);
    const { rows } = await client.query<{ name: string }>(
      `select distinct p.oid::regprocedure::text as name
       from pg_rewrite r, regexp_matches(r.ev_action::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') as called(oid)
       join pg_proc p on p.oid = called.oid[1]::oid
       where r.ev_class = 'pg_temp.cf_volatile'::regclass and p.provolatile = 'v' order by 1`,
    );
    return rows.map(({ name }) => name);
  } catch (error) {
    // What no view can be made of has shown that it runs.
    if (!isFaultOfStatement(error)) throw error;
    return [];
  } finally {
    await client.query("rollback");
  }
}

function describe(functions: readonly string[]): string {
  return `calls ${functions.join(", ")}: volatile, but a row must come out the same whenever it is made. Derive the value from the row, such as md5(id::text)::uuid; a function of your own that does answer alike can be declared stable`;
}
