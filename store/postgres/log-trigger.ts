import type { Side } from "../../config/words.ts";
import type { Column } from "./catalog.ts";
import type { LoggedTable } from "./mapping.ts";
import { logTable, turnSequence, turnTables } from "./follow-schema.ts";
import { ident, literal, relation } from "./quote.ts";

/** Types whose cast to text is their output function and follows no setting of the app's session. */
const PLAIN = new Set([
  "int2",
  "int4",
  "int8",
  "numeric",
  "text",
  "varchar",
  "uuid",
  "oid",
  "name",
  "citext",
]);
/** Output follows no setting, but a cast to text is not the output function (char(n) loses blanks, inet gains /32). */
const FORMATTED = new Set([
  "bool",
  "bpchar",
  "char",
  "inet",
  "cidr",
  "macaddr",
  "macaddr8",
  "bytea",
  "bit",
  "varbit",
  "pg_lsn",
]);

/** Text of a value exactly as its output function gives it; null stays null. */
function textOf(row: "new" | "old", column: Column): string {
  const value = `${row}.${ident(column.name)}`;
  if (PLAIN.has(column.typeName) || column.typeKind === "e") return `${value}::text`;
  return `case when ${value} is not null then format('%s', ${value}) end`;
}

/** Dates, floats, intervals …: the function pins the settings their output follows. It costs some, so only then. */
function pins(columns: readonly Column[]): string {
  const needed = columns.some(
    (column) =>
      !PLAIN.has(column.typeName) && !FORMATTED.has(column.typeName) && column.typeKind !== "e",
  );
  return needed
    ? " set datestyle = 'ISO, MDY' set timezone = 'UTC' set intervalstyle = 'postgres' set extra_float_digits = 1"
    : "";
}

const UNMARKED = "coalesce(current_setting('crossfade.mirror', true), '') = ''";

export function logFunctionName(side: Side, number: number): string {
  return `crossfade.log_${side}_${number}`;
}

/**
 * The trigger function of one table: logs the key (and what an `also` uses) of the row before and after a change; one
 * log row when both are the same. No NOTIFY: it would serialise the app's commits (writes fell to 0.36).
 */
export function logFunctionSql(side: Side, logged: LoggedTable): string {
  const array = (row: "new" | "old") =>
    `array[${logged.columns.map((column) => textOf(row, column)).join(", ")}]::text[]`;
  const put = (row: "new" | "old") => inTurn(side, logged.number, "w", array(row));
  const changed = logged.columns
    .map((column) => `old.${ident(column.name)} is distinct from new.${ident(column.name)}`)
    .map((condition, i) =>
      hasEquality(logged.columns[i])
        ? condition
        : `${textOf("old", logged.columns[i] as Column)} is distinct from ${textOf("new", logged.columns[i] as Column)}`,
    )
    .join(" or ");
  const body = `declare turn bigint;
begin
  if tg_op = 'TRUNCATE' then
    ${inTurn(side, logged.number, "t", "null")}
  elsif tg_op = 'INSERT' then
    ${put("new")}
  elsif tg_op = 'DELETE' then
    ${put("old")}
  else
    if ${changed === "" ? "false" : changed} then
      ${put("old")}
    end if;
    ${put("new")}
  end if;
  return null;
end`;
  return `create or replace function ${logFunctionName(side, logged.number)}() returns trigger language plpgsql${pins(logged.columns)} as ${literal(body)}`;
}

/** The function of the wal feed's triggers, which log nothing but TRUNCATE, and to the log itself: it has no turns. */
export function truncateFunctionSql(side: Side, logged: LoggedTable): string {
  const body = `begin
  insert into ${logTable(side)} (tbl, op) values (${logged.number}, 't');
  return null;
end`;
  return `create or replace function ${logFunctionName(side, logged.number)}() returns trigger language plpgsql as ${literal(body)}`;
}

/** The last table also takes the rows of a turn that is not known: whatever the sequence says, an app's write goes through. */
function inTurn(side: Side, number: number, op: "w" | "t", values: string): string {
  const [first = "", second = "", third = ""] = turnTables(side).map(
    (table) =>
      `insert into ${table} (tbl, op, vals) values (${number}, ${literal(op)}, ${values});`,
  );
  return `turn := pg_catalog.pg_sequence_last_value(${literal(turnSequence(side))}::pg_catalog.regclass);
    if turn = 0 then ${first}
    elsif turn = 1 then ${second}
    else ${third}
    end if;`;
}

function hasEquality(column: Column | undefined): boolean {
  return (
    column !== undefined && !["json", "xml", "point", "box", "polygon"].includes(column.typeName)
  );
}

/**
 * Statements that put the triggers on a table; each is for a transaction of its own, because each waits for the
 * table's writers. `enable always`: changes made by replication are changes too.
 */
export function logTriggerSql(side: Side, logged: LoggedTable): string[][] {
  const table = relation(logged.table.schema, logged.table.name);
  const run = `execute function ${logFunctionName(side, logged.number)}()`;
  // A TRUNCATE trigger is not cloned to partitions, and a leaf can be truncated alone.
  const truncated = [logged.table, ...logged.table.leaves];
  return [
    [
      `create or replace trigger crossfade_log after insert or update or delete on ${table} for each row when (${UNMARKED}) ${run}`,
      `alter table ${table} enable always trigger crossfade_log`,
    ],
    ...truncated.map((name) => truncateTriggerSql(side, logged, name)),
  ];
}

/** Statements that put the trigger for TRUNCATE on a table or partition. */
export function truncateTriggerSql(
  side: Side,
  logged: LoggedTable,
  on: { readonly schema: string; readonly name: string },
): string[] {
  const name = relation(on.schema, on.name);
  return [
    `create or replace trigger crossfade_log_truncate after truncate on ${name} for each statement when (${UNMARKED}) execute function ${logFunctionName(side, logged.number)}()`,
    `alter table ${name} enable always trigger crossfade_log_truncate`,
  ];
}
