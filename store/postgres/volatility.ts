import type pg from "pg";
import type { PlanIssue } from "../../config/errors.ts";
import { emptyRelation } from "./compile-checks.ts";
import { bareColumn, type CompiledDirection, type Driver, type Reader } from "./mapping.ts";
import { isFaultOfStatement } from "./session.ts";

/** A function, or what is like one, that a mapping's SQL must not call. */
interface Called {
  readonly name: string;
  readonly why: "volatile" | "momentary";
}

/** Sessions of one direction: on its source, and where expressions run. */
export interface MappingSessions {
  readonly source: pg.ClientBase;
  readonly mapper: pg.ClientBase;
}

/**
 * Stable, so alike within one statement, and another in the next transaction or session. Not among them is what all sessions of
 * a plan have in common, such as current_user.
 */
const MOMENTARY = [
  "now",
  "statement_timestamp",
  "transaction_timestamp",
  "pg_current_snapshot",
  "pg_current_xact_id",
  "pg_current_xact_id_if_assigned",
  "txid_current",
  "txid_current_if_assigned",
  "txid_current_snapshot",
  "mxid_age",
  "pg_backend_pid",
  "inet_client_port",
  "pg_my_temp_schema",
  "pg_conf_load_time",
  "pg_postmaster_start_time",
] as const;

/** Those that SQL writes without brackets are no functions to Postgres. In the order of its SQLValueFunctionOp; the rest names a user or a schema. */
const CLOCKS = [
  "current_date",
  "current_time",
  "current_time",
  "current_timestamp",
  "current_timestamp",
  "localtime",
  "localtime",
  "localtimestamp",
  "localtimestamp",
] as const;

/**
 * A row is made again by every sync and every comparison: what comes out differently each time is never equal, and under
 * an `own` of its own it is another row each time. Postgres knows which functions are such: they are volatile, or tell the time.
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
async function volatileFunctions(client: pg.ClientBase, select: string): Promise<Called[]> {
  await client.query("begin");
  try {
    await client.query(`create temporary view cf_volatile as ${select}`);
    const { rows } = await client.query<Called>(
      `with cf_parsed as (select ev_action::text as tree from pg_rewrite where ev_class = 'pg_temp.cf_volatile'::regclass)
       select distinct p.oid::regprocedure::text as name, case when p.provolatile = 'v' then 'volatile' else 'momentary' end as why
       from cf_parsed, regexp_matches(tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') as called(oid)
       join pg_proc p on p.oid = called.oid[1]::oid
       where p.provolatile = 'v' or p.pronamespace = 'pg_catalog'::regnamespace
         -- With one argument: how long ago that is.
         and (p.proname = any($1::text[]) or p.proname = 'age' and p.pronargs = 1)
       union select ($2::text[])[clock.op[1]::int + 1], 'momentary'
       from cf_parsed, regexp_matches(tree, 'SQLVALUEFUNCTION :op (\\d+)', 'g') as clock(op)
       where clock.op[1]::int < cardinality($2::text[]) order by 1`,
      [MOMENTARY, CLOCKS],
    );
    return rows;
  } catch (error) {
    // What no view can be made of has shown that it runs.
    if (!isFaultOfStatement(error)) throw error;
    return [];
  } finally {
    await client.query("rollback");
  }
}

function describe(called: readonly Called[]): string {
  const names = called.map(({ name }) => name).join(", ");
  const must = "but a row must come out the same whenever it is made";
  return called.every(({ why }) => why === "volatile")
    ? `calls ${names}: volatile, ${must}. Derive the value from the row, such as md5(id::text)::uuid; a function of your own that does answer alike can be declared stable`
    : `calls ${names}: another answer each time, ${must}. Write a fixed one, or derive it from the row; a column for when a row came to this side is left out of \`set\` and has a default there`;
}
