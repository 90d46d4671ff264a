import type pg from "pg";
import type { TableRef } from "./guard-tables.ts";
import { ident, literal, relation } from "./quote.ts";
import { runPrepared } from "./statement.ts";

/** Numbers that may be handed out between the raise and the end of the flip, and by rows that carry their own. */
const HEAD_ROOM = 1000n;

/** A column whose values come from a sequence. */
export interface ColumnRef extends TableRef {
  readonly column: string;
}

/** Whose values a target column receives under the plan: a target column without an entry takes its namesake. */
export interface ColumnSource {
  readonly target: ColumnRef;
  readonly source: ColumnRef;
}

/** A sequence that fills columns of mapped tables: owned by them, their identity, or used in their defaults. */
export interface SequenceInfo extends TableRef {
  readonly increment: bigint;
  readonly cache: bigint;
  readonly min: bigint;
  readonly max: bigint;
  readonly start: bigint;
  /** The highest value handed out or cached; undefined while unused. */
  readonly last: bigint | undefined;
  readonly columns: readonly SequenceColumn[];
}

export interface SequenceColumn extends ColumnRef {
  /** Its largest value is one index probe away. */
  readonly indexed: boolean;
  /** Its values are whole numbers that can be compared with the sequence. */
  readonly numeric: boolean;
}

export interface SequenceSide {
  readonly client: pg.ClientBase;
  readonly tables: readonly TableRef[];
}

export interface RaiseOptions {
  readonly from: SequenceSide;
  readonly to: SequenceSide;
  /** Columns that carry another name on the source. */
  readonly sources?: readonly ColumnSource[];
  /** `indexed`: skip columns whose maximum takes a scan (for the second raise, while writes are held). */
  readonly maxima: "all" | "indexed";
  /** From `planRaise`; by default it is made now. */
  readonly plan?: RaisePlan;
}

export interface Raised {
  readonly sequence: TableRef;
  readonly before: bigint | undefined;
  readonly after: bigint;
}

/** One sequence to raise, and what tells how far: looked up in the catalogs once, so that raising again takes two statements. */
interface PlannedRaise {
  readonly target: SequenceInfo;
  /** Sequences of `from` that fill the same columns. */
  readonly related: readonly SequenceInfo[];
  /** The columns it fills, on `to`, and where their values come from, on `from`. */
  readonly here: readonly SequenceColumn[];
  readonly there: readonly SequenceColumn[];
}

export type RaisePlan = readonly PlannedRaise[];

/** Reads both catalogs: what `raiseSequences` looks at. */
export async function planRaise(
  options: Omit<RaiseOptions, "maxima" | "plan">,
): Promise<RaisePlan> {
  const [sources, targets] = await Promise.all([
    listSequences(options.from.client, options.from.tables),
    listSequences(options.to.client, options.to.tables),
  ]);
  const wanted = targets.map(({ columns }) =>
    columns.map((column) => sourceColumn(options.sources ?? [], column)),
  );
  const found = await describeColumns(options.from.client, wanted.flat());
  return targets.map((target, n) => {
    const columns = wanted[n] ?? [];
    const isWanted = (column: ColumnRef) => columns.some((other) => sameColumn(column, other));
    return {
      target,
      related: sources.filter((source) => source.columns.some(isWanted)),
      here: target.columns.filter(({ numeric }) => numeric),
      there: found.filter((column) => column.numeric && isWanted(column)),
    };
  });
}

/**
 * Raises the sequences of `to` beyond everything `from` has handed out, with head-room, so that the app of `to` never
 * draws a number a mirrored row has. Never lowers one, and leaves one alone that is far enough already: repeating it
 * uses up nothing. `setval` is not transactional; every raise is committed when this returns.
 */
export async function raiseSequences(options: RaiseOptions): Promise<Raised[]> {
  const plan = options.plan ?? (await planRaise(options));
  if (plan.length === 0) return [];
  const { from, to, maxima } = options;
  const allowed = (columns: readonly SequenceColumn[]) =>
    maxima === "all" ? columns : columns.filter(({ indexed }) => indexed);
  const [here, there] = await Promise.all([
    readValues(
      to.client,
      plan.map(({ target, here: columns }) => ({
        up: target.increment > 0n,
        sequences: [target],
        columns: allowed(columns),
      })),
    ),
    readValues(
      from.client,
      plan.map(({ target, related, there: columns }) => ({
        up: target.increment > 0n,
        sequences: related,
        columns: allowed(columns),
      })),
    ),
  ]);
  const raised: Raised[] = [];
  const statements: string[] = [];
  for (const [n, { target, related }] of plan.entries()) {
    const last = here[n]?.sequences[0];
    const inUse = [here[n]?.columns, there[n]?.sequences, there[n]?.columns].flatMap(
      (values) => values ?? [],
    );
    const value = nextValue({ ...target, last }, inUse, related);
    if (value === undefined) continue;
    raised.push({
      sequence: { schema: target.schema, name: target.name },
      before: last,
      after: value,
    });
    statements.push(setSequenceSql(target, value));
  }
  if (statements.length > 0) await to.client.query(statements.join(";\n"));
  return raised;
}

interface Asked {
  readonly up: boolean;
  readonly sequences: readonly SequenceInfo[];
  readonly columns: readonly SequenceColumn[];
}

interface Values {
  readonly sequences: bigint[];
  readonly columns: bigint[];
}

/**
 * What sequences have handed out, and the largest value (for one that counts down: the smallest) of columns, in one
 * statement; unused ones are left out. Straight from the sequences: the view pg_sequences shows null where the privilege
 * is missing.
 */
async function readValues(client: pg.ClientBase, asked: readonly Asked[]): Promise<Values[]> {
  const parts = asked.flatMap(({ up, sequences, columns }, n) => [
    ...sequences.map(
      ({ schema, name }) =>
        `select ${n} as n, 's' as kind, case when is_called then last_value::text end as value from ${relation(schema, name)}`,
    ),
    ...columns.map(
      ({ schema, name, column }) =>
        `select ${n} as n, 'c' as kind, trunc(${up ? "max" : "min"}(${ident(column)}))::numeric::text as value from ${relation(schema, name)}`,
    ),
  ]);
  const values = asked.map((): Values => ({ sequences: [], columns: [] }));
  if (parts.length === 0) return values;
  // Two parts for each table: planning them takes six times as long as reading, and a flip reads again while writes are held.
  const rows = await runPrepared(client, parts.join(" union all "), []);
  for (const [n, kind, value] of rows) {
    // NaN and infinity are values of a numeric column.
    if (value == null || !/^-?\d+$/.test(value)) continue;
    values[Number(n)]?.[kind === "s" ? "sequences" : "columns"].push(BigInt(value));
  }
  return values;
}

/** The policy alone: where `target` must stand, given its counterparts and the values in use. Undefined: it may stay. */
export function nextValue(
  target: SequenceInfo,
  inUse: readonly bigint[],
  related: readonly SequenceInfo[],
): bigint | undefined {
  if (inUse.length === 0) return undefined;
  const up = target.increment > 0n;
  const furthest = (values: readonly bigint[]) => values.reduce((a, b) => (a > b === up ? a : b));
  const cache = [target, ...related].reduce(
    (most, { cache: size }) => (size > most ? size : most),
    1n,
  );
  const step = [target, ...related].reduce(
    (most, { increment }) => (abs(increment) > most ? abs(increment) : most),
    1n,
  );
  const room = step * (cache + HEAD_ROOM) * (up ? 1n : -1n);
  // Unused, it would hand out `start` first: as if it had last given the number before.
  const last = target.last ?? target.start - target.increment;
  const enough = furthest(inUse) + room;
  if (last === furthest([last, clamp(target, furthest(inUse), enough)])) return undefined;
  return clamp(target, furthest([...inUse, last]), furthest([...inUse, last]) + room);
}

/** Within the bounds; where the head-room does not fit, half of what is left, so that the sequence is not used up by it. */
function clamp(target: SequenceInfo, base: bigint, value: bigint): bigint {
  const bound = target.increment > 0n ? target.max : target.min;
  const beyond = target.increment > 0n ? value > bound : value < bound;
  if (!beyond) return target.increment > 0n ? maxOf(value, target.min) : minOf(value, target.max);
  const baseBeyond = target.increment > 0n ? base >= bound : base <= bound;
  return baseBeyond ? bound : base + (bound - base) / 2n;
}

/** Compares with the value it has at that moment, so that numbers drawn meanwhile are not given out again. */
function setSequenceSql(sequence: SequenceInfo, value: bigint): string {
  const name = relation(sequence.schema, sequence.name);
  const best = sequence.increment > 0n ? "greatest" : "least";
  return `select setval(${literal(name)}::regclass, case when is_called then ${best}(last_value, ${value}) else ${value} end) from ${name}`;
}

/** The sequences that fill columns of the tables (or of their partitions). */
export async function listSequences(
  client: pg.ClientBase,
  tables: readonly TableRef[],
): Promise<SequenceInfo[]> {
  const { rows } = await client.query<RawSequence>(SEQUENCES_SQL, [
    tables.map((t) => t.schema),
    tables.map((t) => t.name),
  ]);
  const byName = new Map<string, { first: RawSequence; columns: SequenceColumn[] }>();
  for (const row of rows) {
    const entry = byName.get(relation(row.seq_schema, row.seq_name)) ?? { first: row, columns: [] };
    byName.set(relation(row.seq_schema, row.seq_name), entry);
    entry.columns.push(toColumn(row));
  }
  const values = await lastValues(client, [...byName.keys()]);
  return [...byName].map(([name, { first, columns }]) => ({
    schema: first.seq_schema,
    name: first.seq_name,
    increment: BigInt(first.increment),
    cache: BigInt(first.cache),
    min: BigInt(first.min),
    max: BigInt(first.max),
    start: BigInt(first.start),
    last: values.get(name),
    columns,
  }));
}

interface RawColumn {
  schema: string;
  name: string;
  column: string;
  indexed: string;
  numeric: string;
}

interface RawSequence extends RawColumn {
  seq_schema: string;
  seq_name: string;
  increment: string;
  cache: string;
  min: string;
  max: string;
  start: string;
}

function toColumn(row: RawColumn): SequenceColumn {
  const { schema, name, column } = row;
  return { schema, name, column, indexed: row.indexed === "1", numeric: row.numeric === "1" };
}

/** Straight from the sequences, in one statement: the view pg_sequences shows null where the privilege is missing. */
async function lastValues(
  client: pg.ClientBase,
  names: readonly string[],
): Promise<Map<string, bigint | undefined>> {
  if (names.length === 0) return new Map();
  const parts = names.map(
    (name, n) =>
      `select ${n} as n, last_value::text as value, is_called::int::text as called from ${name}`,
  );
  const { rows } = await client.query<{ n: number | string; value: string; called: string }>(
    parts.join(" union all "),
  );
  return new Map(
    rows.map(({ n, value, called }) => [
      names[Number(n)] ?? "",
      called === "1" ? BigInt(value) : undefined,
    ]),
  );
}

/** The columns among `wanted` that exist on this side. */
async function describeColumns(
  client: pg.ClientBase,
  wanted: readonly ColumnRef[],
): Promise<SequenceColumn[]> {
  const { rows } = await client.query<RawColumn>(COLUMNS_SQL, [
    wanted.map((column) => column.schema),
    wanted.map((column) => column.name),
    wanted.map((column) => column.column),
  ]);
  return rows.map(toColumn);
}

function sourceColumn(sources: readonly ColumnSource[], target: ColumnRef): ColumnRef {
  return sources.find((entry) => sameColumn(entry.target, target))?.source ?? target;
}

function sameColumn(a: ColumnRef, b: ColumnRef): boolean {
  return a.schema === b.schema && a.name === b.name && a.column === b.column;
}

const abs = (value: bigint) => (value < 0n ? -value : value);
const maxOf = (a: bigint, b: bigint) => (a > b ? a : b);
const minOf = (a: bigint, b: bigint) => (a < b ? a : b);

/** Of a row (c, a): whether an index begins with the column, and whether the column holds numbers. */
const COLUMN_FACTS = `
  n.nspname as schema, c.relname as name, a.attname as column,
  exists (select from pg_index i where i.indrelid = c.oid and i.indisvalid and i.indpred is null and i.indkey[0] = a.attnum)::int::text as indexed,
  (coalesce(nullif(t.typbasetype, 0), t.oid) in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype))::int::text as numeric`;

const COLUMNS_SQL = `
select distinct ${COLUMN_FACTS}
from unnest($1::text[], $2::text[], $3::text[]) as w(schema, name, col)
join pg_namespace n on n.nspname = w.schema
join pg_class c on c.relnamespace = n.oid and c.relname = w.name and c.relkind in ('r', 'p')
join pg_attribute a on a.attrelid = c.oid and a.attname = w.col and not a.attisdropped
join pg_type t on t.oid = a.atttypid`;

/** Owned (deptype a), identity (i), and used in a default (from pg_attrdef; a default's own sequence is both). */
const SEQUENCES_SQL = `
with recursive mapped as (
  select c.oid, 0 as depth from unnest($1::text[], $2::text[]) as m(schema, name)
  join pg_namespace n on n.nspname = m.schema
  join pg_class c on c.relnamespace = n.oid and c.relname = m.name
  union
  select i.inhrelid, 1 from mapped m join pg_inherits i on i.inhparent = m.oid
), used as (
  select d.objid as seq, d.refobjid as tab, d.refobjsubid as att from pg_depend d
  where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0
  union
  select d.refobjid, f.adrelid, f.adnum from pg_depend d join pg_attrdef f on f.oid = d.objid
  where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass
)
select distinct sn.nspname as seq_schema, sc.relname as seq_name, s.seqincrement::text as increment, s.seqcache::text as cache,
  s.seqmin::text as min, s.seqmax::text as max, s.seqstart::text as start, ${COLUMN_FACTS}
from used u
join mapped m on m.oid = u.tab
join pg_sequence s on s.seqrelid = u.seq
join pg_class sc on sc.oid = u.seq join pg_namespace sn on sn.oid = sc.relnamespace
join pg_class c on c.oid = u.tab join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum = u.att
join pg_type t on t.oid = a.atttypid
order by 1, 2, 8, 9, 10`;
