import type pg from "pg";
import type { Deferrable } from "../../config/words.ts";
import type { DeferredObject } from "../control/deferred-objects.ts";
import { allMappings, type CompiledDirection } from "./mapping.ts";
import { run } from "./statement.ts";

/** What `backfill.defer` would drop, what it leaves where it is and why, and what keeps this role from doing it at all. */
export interface DeferrableObjects {
  readonly objects: readonly DeferredObject[];
  readonly stays: readonly {
    readonly table: string;
    readonly name: string;
    readonly why: string;
  }[];
  /** Empty: everything that is dropped can be built again. */
  readonly unfit: readonly string[];
}

/**
 * Reads the indexes and foreign keys of the tables that a direction makes. Changes nothing. `client` has `pg_catalog` alone in its
 * search_path, so that every name in a definition has its schema. `replicaRole`: sync sessions do not look at foreign keys.
 */
export async function findDeferrable(
  client: pg.ClientBase,
  compiled: CompiledDirection,
  kinds: readonly Deferrable[],
  replicaRole: boolean,
): Promise<DeferrableObjects> {
  const tables = [...new Set(allMappings(compiled).map(({ mapping }) => mapping.target.name))];
  const found: { object: DeferredObject; why: string | null }[] = [];
  if (kinds.includes("indexes")) {
    const references = !replicaRole && !kinds.includes("foreign_keys");
    const needed = neededColumns(compiled, references);
    for (const [
      kind,
      table = "",
      name = "",
      definition,
      tablespace,
      comment,
      why,
      first,
    ] of await run(client, INDEXES, [compiled.targetSchema, tables]))
      found.push({
        object: toObject(compiled, { kind, table, name, definition, tablespace, comment }),
        why: why ?? needed(table ?? "", first ?? null),
      });
  }
  if (kinds.includes("foreign_keys"))
    for (const [kind, table, name, definition, tablespace, comment, why, valid] of await run(
      client,
      FOREIGN_KEYS,
      [compiled.targetSchema, tables],
    ))
      found.push({
        object: toObject(compiled, { kind, table, name, definition, tablespace, comment, valid }),
        why: why ?? null,
      });
  const objects = found.filter(({ why }) => why === null).map(({ object }) => object);
  return {
    objects,
    stays: found.flatMap(({ object: { table, name }, why }) =>
      why === null ? [] : [{ table, name, why }],
    ),
    unfit: await missingRights(client, objects),
  };
}

function toObject(
  { targetSchema: schema }: CompiledDirection,
  row: Readonly<Record<string, string | null | undefined>>,
): DeferredObject {
  return {
    kind: row["kind"] === "index" ? "index" : "foreign key",
    schema,
    table: row["table"] ?? "",
    name: row["name"] ?? "",
    // What is not valid is said to be so beside it.
    definition: (row["definition"] ?? "").replace(/ NOT VALID$/, ""),
    tablespace: row["tablespace"] ?? "",
    comment: row["comment"] ?? null,
    validated: row["valid"] !== "false",
  };
}

/**
 * Why a sync looks up rows by an index that begins with a column: the rows a source key owns; rows of another new table that an
 * expression reads (which follows from an `also`); rows that refer to one that is deleted, where the database still checks that.
 */
function neededColumns(
  compiled: CompiledDirection,
  references: boolean,
): (table: string, column: string | null) => string | null {
  const also = new Set(
    compiled.logged.filter((logged) => logged.also.length > 0).map(({ name }) => name),
  );
  const mappings = allMappings(compiled);
  return (table, column) => {
    for (const { driver, mapping } of mappings.filter(
      ({ mapping: one }) => one.target.name === table,
    )) {
      if (also.has(driver.name)) return `expressions of the plan read ${table}`;
      const { own } = mapping;
      if (own.kind === "columns" && own.columns.some((each) => each.column === column))
        return `${mapping.path} finds its rows by ${column}`;
      if (
        references &&
        mapping.target.foreignKeys.some((key) => key.columns.includes(column ?? ""))
      )
        return `a foreign key is checked by ${column}`;
    }
    return null;
  };
}

/** Whoever drops must be able to build again. */
async function missingRights(
  client: pg.ClientBase,
  objects: readonly DeferredObject[],
): Promise<string[]> {
  const tables = [...new Set(objects.map(({ table }) => table))];
  const [first] = objects;
  if (first === undefined) return [];
  const rows = await run(
    client,
    `select format('role %s does not own %I.%I', current_user, n.nspname, c.relname)
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = any($2::text[]) and not pg_has_role(c.relowner, 'usage')
     union all
     select format('role %s may not create in schema %I', current_user, $1) where not has_schema_privilege($1, 'create')
     order by 1`,
    [first.schema, tables],
  );
  return rows.map(([what]) => what ?? "");
}

const OF_TABLES = `
  join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = $1 and c.relname = any($2::text[])`;

const INDEXES = `
  select 'index', c.relname, i.relname, pg_get_indexdef(i.oid), coalesce(s.spcname, ''), obj_description(i.oid, 'pg_class'),
    case
      when c.relkind <> 'r' or c.relispartition then 'a partitioned table''s cannot be built without stopping writes'
      when exists (select from pg_constraint k where k.conindid = i.oid) then 'a constraint rests on it'
      when x.indisunique or x.indisexclusion then 'it decides which rows are refused'
      when x.indisreplident or x.indisclustered then 'the table''s replica identity or order rests on it'
      when not x.indisvalid or not x.indislive then 'it is not valid'
      when exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = i.oid and d.deptype = 'e')
        then 'it belongs to an extension'
      when exists (select from pg_depend d where d.refclassid = 'pg_class'::regclass and d.refobjid = i.oid and d.deptype = 'n')
        then 'something else depends on it'
      when exists (select from pg_attribute a where a.attrelid = i.oid and coalesce(a.attstattarget, -1) >= 0)
        then 'it has a statistics target of its own'
      when s.oid is not null and not has_tablespace_privilege(s.oid, 'create') then 'this role may not create in its tablespace'
    end,
    (select a.attname from pg_attribute a where a.attrelid = c.oid and a.attnum = x.indkey[0] and a.attnum > 0)
  from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
  left join pg_tablespace s on s.oid = i.reltablespace
  ${OF_TABLES} and not x.indisprimary
  order by c.relname, i.relname`;

/** conenforced: from Postgres 18 on. */
const FOREIGN_KEYS = `
  select 'foreign key', c.relname, f.conname, pg_get_constraintdef(f.oid), '', obj_description(f.oid, 'pg_constraint'),
    case
      when c.relkind <> 'r' or c.relispartition or r.relkind <> 'r' or f.conparentid <> 0
        then 'a partitioned table''s cannot be added without stopping writes'
      when to_jsonb(f) ->> 'conenforced' = 'false' then 'it is not enforced'
      when exists (select from pg_trigger g where g.tgconstraint = f.oid and g.tgenabled <> 'O') then 'it is switched off'
      when not has_table_privilege(r.oid, 'references') then format('this role may not refer to %s', r.relname)
    end,
    f.convalidated::text
  from pg_constraint f join pg_class c on c.oid = f.conrelid join pg_class r on r.oid = f.confrelid
  ${OF_TABLES} and f.contype = 'f'
  order by c.relname, f.conname`;
