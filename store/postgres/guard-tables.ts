import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import { literal, relation } from "./quote.ts";

export interface TableRef {
  readonly schema: string;
  readonly name: string;
}

/** A table that needs a guard of its own, and what it has. */
export interface GuardedTable extends TableRef {
  readonly oid: string;
  /** Quoted, schema-qualified. */
  readonly sql: string;
  readonly hasStatementTrigger: boolean;
  /** The top of a partitioned tree: its row trigger is made and switched here, and Postgres clones it to every partition. */
  readonly ownsRowTrigger: boolean;
  readonly hasRowTrigger: boolean;
  /** Every trigger it needs is there and ENABLE ALWAYS. */
  readonly armed: boolean;
  /** No guard trigger of it is enabled. */
  readonly disarmed: boolean;
}

interface RawGuarded {
  oid: string | null;
  position: string | null;
  schema: string | null;
  name: string | null;
  statement_state: string | null;
  row_state: string | null;
  partitioned: string;
  depth: string;
  all_always: string;
  all_disabled: string;
}

/**
 * The mapped tables with all their descendants, and the state of their guard triggers. Descendants are partitions of
 * every level and inheritance children: a write straight to one of them fires none of the root's statement triggers.
 * Roots come before their descendants, so that a row trigger is made where it is cloned from.
 */
export async function guardedTables(
  client: pg.ClientBase,
  side: Side,
  tables: readonly TableRef[],
): Promise<GuardedTable[]> {
  const { rows } = await client.query<RawGuarded>(GUARDED_SQL, [
    tables.map((table) => table.schema),
    tables.map((table) => table.name),
    `crossfade.guard_${side}()`,
  ]);
  const missing = rows.find((row) => row.name === null);
  if (missing !== undefined) {
    const table = tables[Number(missing.position) - 1];
    throw new CrossfadeError(
      "DATABASE_UNFIT",
      `${side} database: table ${table?.schema}.${table?.name} is not there`,
    );
  }
  return rows.map(toGuarded);
}

/** The statement that reads `schema` and `name` of the tables without an armed guard, for a message of several. */
export function unarmedSql(side: Side, tables: readonly TableRef[]): string {
  const array = (values: readonly string[]) => `array[${values.map(literal).join(", ")}]::text[]`;
  const schemas = array(tables.map(({ schema }) => schema));
  const names = array(tables.map(({ name }) => name));
  const guarded = guardedSql(schemas, names, literal(`crossfade.guard_${side}()`));
  return `select coalesce(cf.schema, (${schemas})[cf.position::int]) as schema, coalesce(cf.name, (${names})[cf.position::int]) as name
    from (${guarded}) cf
    where cf.name is null or cf.statement_state is null or cf.all_always <> '1' or (cf.partitioned = '1' and cf.row_state is null)`;
}

/**
 * The statement that reads a digest of what `guardedTables` looks at, for tables that it has found: while it stays the same, so does
 * what was found. For a look under the guard's lock, where everybody waits: with 100 tables it takes a third of the time.
 */
export function guardDigestSql(found: readonly GuardedTable[]): string {
  const list = `'{${found.map(({ oid }) => Number(oid)).join(",")}}'::oid[]`;
  const schemas = [...new Set(found.map(({ schema }) => schema))].map(literal).join(", ");
  const digest = (xmin: string, row: string) => `bit_xor(hashtextextended(${xmin}::text, ${row}))`;
  return `select concat_ws('|',
    (select ${digest("n.xmin", "n.oid::int8")} from pg_namespace n where n.nspname in (${schemas})),
    (select ${digest("c.xmin", "c.oid::int8")} from pg_class c where c.oid = any(${list})),
    (select ${digest("g.xmin", "g.oid::int8")} from pg_trigger g where g.tgrelid = any(${list})),
    (select ${digest("i.inhrelid", "i.inhparent::int8")} from pg_inherits i where i.inhparent = any(${list}))) as digest`;
}

function toGuarded(row: RawGuarded): GuardedTable {
  const schema = row.schema ?? "";
  const name = row.name ?? "";
  const hasStatementTrigger = row.statement_state !== null;
  const hasRowTrigger = row.row_state !== null;
  const partitioned = row.partitioned === "1";
  return {
    oid: row.oid ?? "",
    schema,
    name,
    sql: relation(schema, name),
    hasStatementTrigger,
    ownsRowTrigger: partitioned && row.depth === "0",
    hasRowTrigger,
    armed: hasStatementTrigger && (hasRowTrigger || !partitioned) && row.all_always === "1",
    disarmed: row.all_disabled === "1",
  };
}

function guardedSql(schemas: string, names: string, guard: string): string {
  return `
with recursive mapped as (
  select m.position, c.oid
  from unnest(${schemas}, ${names}) with ordinality as m(schema, name, position)
  left join (pg_class c join pg_namespace n on n.oid = c.relnamespace)
    on n.nspname = m.schema and c.relname = m.name and c.relkind in ('r', 'p')
), tree as (
  select oid, 0 as depth, position from mapped
  union
  select i.inhrelid, t.depth + 1, t.position from tree t join pg_inherits i on i.inhparent = t.oid
), member as (
  select oid, max(depth) as depth, min(position) as position from tree group by oid
)
select m.oid::text, m.position::text, n.nspname as schema, c.relname as name,
  s.tgenabled::text as statement_state, r.tgenabled::text as row_state,
  (c.relkind = 'p')::int::text as partitioned, m.depth::text,
  coalesce((select bool_and(g.tgenabled = 'A') from pg_trigger g where g.tgrelid = c.oid and g.tgfoid = f.oid), false)::int::text as all_always,
  coalesce((select bool_and(g.tgenabled = 'D') from pg_trigger g where g.tgrelid = c.oid and g.tgfoid = f.oid), true)::int::text as all_disabled
from member m
left join pg_class c on c.oid = m.oid
left join pg_namespace n on n.oid = c.relnamespace
cross join (select to_regprocedure(${guard}) as oid) f
left join pg_trigger s on s.tgrelid = c.oid and s.tgfoid = f.oid and s.tgname = 'crossfade_guard'
left join pg_trigger r on r.tgrelid = c.oid and r.tgfoid = f.oid and r.tgname = 'crossfade_guard_row'
where c.oid is null or c.relkind in ('r', 'p')
order by m.depth, m.position, n.nspname, c.relname`;
}

const GUARDED_SQL = guardedSql("$1::text[]", "$2::text[]", "$3");
