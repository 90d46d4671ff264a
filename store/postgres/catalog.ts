import type pg from "pg";

/** One column, as the catalog of its own server describes it. */
export interface Column {
  readonly name: string;
  /** With type modifier and schema where needed: `character varying(5)`, `app.mood`. */
  readonly type: string;
  /** Without modifier, so that an explicit cast to it never truncates or rounds. */
  readonly baseType: string;
  /** `typtype`: b base, c composite, d domain, e enum, p pseudo, r range, m multirange. */
  readonly typeKind: string;
  /** Name of the type in pg_type, e.g. `int8`. */
  readonly typeName: string;
  readonly notNull: boolean;
  readonly hasDefault: boolean;
  /** Computed by the database: never written. */
  readonly generated: boolean;
  /** `always`: cannot be set by an update. */
  readonly identity: "always" | "by default" | undefined;
}

export interface ForeignKey {
  readonly name: string;
  readonly columns: readonly string[];
  readonly referencedSchema: string;
  readonly referencedTable: string;
  readonly referencedColumns: readonly string[];
  /** What the database does by itself to this table's rows when the referenced row goes, or its columns change. */
  readonly actsOnDelete: boolean;
  readonly actsOnUpdate: boolean;
}

export interface Table {
  readonly schema: string;
  readonly name: string;
  readonly partitioned: boolean;
  readonly columns: readonly Column[];
  /** The primary key, else a unique index over not-null columns, else empty. */
  readonly key: readonly string[];
  /** Tables that inherit from it, partitions apart: its triggers do not see their rows, its queries do. */
  readonly heirs: readonly string[];
  /** Leaf partitions, quoted by nobody yet. */
  readonly leaves: readonly { readonly schema: string; readonly name: string }[];
  readonly foreignKeys: readonly ForeignKey[];
  /** The planner's estimate; -1 when never analysed. */
  readonly estimatedRows: number;
  /** Triggers that are not ours and not internal. */
  readonly userTriggers: readonly string[];
}

export type Catalog = ReadonlyMap<string, Table>;

export function columnOf(table: Table, name: string): Column | undefined {
  return table.columns.find((column) => column.name === name);
}

/** The columns of a table's key, in key order. */
export function keyColumns(table: Table): Column[] {
  return table.key.map((name) => {
    const column = columnOf(table, name);
    if (column === undefined)
      throw new Error(`${table.name}: key column ${name} is not in the catalog`);
    return column;
  });
}

/**
 * Reads every table of a schema in one statement, so that it is one consistent picture. Leaf partitions appear under
 * their root only. `client` must have `pg_catalog` alone in its search_path, or type names lose their schema.
 */
export async function readCatalog(client: pg.ClientBase, schema: string): Promise<Catalog> {
  const { rows } = await client.query({ text: CATALOG_SQL, values: [schema], rowMode: "array" });
  const tables = new Map<string, Table>();
  for (const [json] of rows as [unknown][]) {
    const raw = (typeof json === "string" ? JSON.parse(json) : json) as RawTable;
    tables.set(raw.name, {
      ...raw,
      columns: raw.columns.map((column) => ({
        ...column,
        identity:
          column.identity === "a" ? "always" : column.identity === "d" ? "by default" : undefined,
      })),
    });
  }
  return tables;
}

interface RawTable extends Omit<Table, "columns"> {
  readonly columns: readonly (Omit<Column, "identity"> & { readonly identity: string })[];
}

/** The columns of the key of `c`, a row of pg_class. */
export const KEY_SQL = `coalesce((
    select json_agg(a.attname order by k.position)
    from (
      select i.indexrelid, i.indkey from pg_index i
      where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
        and i.indpred is null and i.indexprs is null
        and not exists (
          select from unnest(i.indkey::int2[]) with ordinality as u(attnum, position)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum
          where u.position <= i.indnkeyatts and not a.attnotnull)
      order by not i.indisprimary, i.indnkeyatts, i.indexrelid limit 1) best
    join pg_index i on i.indexrelid = best.indexrelid
    cross join lateral unnest(i.indkey::int2[]) with ordinality as k(attnum, position)
    join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
    where k.position <= i.indnkeyatts), '[]')`;

const CATALOG_SQL = `
select json_build_object(
  'schema', n.nspname,
  'name', c.relname,
  'partitioned', c.relkind = 'p',
  'estimatedRows', c.reltuples::bigint,
  'columns', coalesce((
    select json_agg(json_build_object(
      'name', a.attname,
      'type', format_type(a.atttypid, a.atttypmod),
      'baseType', format_type(a.atttypid, -1),
      'typeKind', t.typtype,
      'typeName', t.typname,
      'notNull', a.attnotnull,
      'hasDefault', a.atthasdef,
      'generated', a.attgenerated <> '',
      'identity', a.attidentity) order by a.attnum)
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'),
  'key', ${KEY_SQL},
  'heirs', coalesce((
    select json_agg(h.relname order by h.relname) from pg_inherits i join pg_class h on h.oid = i.inhrelid
    where i.inhparent = c.oid and c.relkind = 'r'), '[]'),
  'leaves', coalesce((
    select json_agg(json_build_object('schema', ln.nspname, 'name', l.relname) order by l.relname)
    from pg_partition_tree(c.oid) p join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
    where p.isleaf and p.relid <> c.oid), '[]'),
  'foreignKeys', coalesce((
    select json_agg(json_build_object(
      'name', f.conname,
      'columns', (select json_agg(a.attname order by u.position) from unnest(f.conkey) with ordinality u(attnum, position)
                  join pg_attribute a on a.attrelid = f.conrelid and a.attnum = u.attnum),
      'referencedSchema', rn.nspname,
      'referencedTable', r.relname,
      'actsOnDelete', f.confdeltype in ('c', 'n', 'd'),
      'actsOnUpdate', f.confupdtype in ('c', 'n', 'd'),
      'referencedColumns', (select json_agg(a.attname order by u.position) from unnest(f.confkey) with ordinality u(attnum, position)
                            join pg_attribute a on a.attrelid = f.confrelid and a.attnum = u.attnum)) order by f.conname)
    from pg_constraint f join pg_class r on r.oid = f.confrelid join pg_namespace rn on rn.oid = r.relnamespace
    where f.conrelid = c.oid and f.contype = 'f'), '[]'),
  'userTriggers', coalesce((
    select json_agg(g.tgname order by g.tgname) from pg_trigger g
    where g.tgrelid = c.oid and not g.tgisinternal and g.tgname not like 'crossfade%' and g.tgenabled <> 'D'), '[]'))
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition
order by c.relname`;

/**
 * Tables in an order in which every referenced table comes before those that refer to it; tables on a cycle keep
 * their alphabetical order. `names` are looked up in `catalog`.
 */
export function foreignKeyOrder(catalog: Catalog, names: Iterable<string>): string[] {
  const wanted = new Set(names);
  const ordered: string[] = [];
  const state = new Map<string, "open" | "done">();
  const visit = (name: string): void => {
    if (state.has(name)) return;
    state.set(name, "open");
    for (const key of catalog.get(name)?.foreignKeys ?? []) visit(key.referencedTable);
    state.set(name, "done");
    if (wanted.has(name)) ordered.push(name);
  };
  for (const name of [...wanted].toSorted()) visit(name);
  return ordered;
}
