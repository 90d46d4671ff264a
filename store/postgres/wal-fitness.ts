import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import type { LoggedTable } from "./mapping.ts";
import { ident, relation } from "./quote.ts";
import { run } from "./statement.ts";
import { findSlot } from "./wal-slot.ts";

/** What of a table and its partitions decides whether its changes can be published. */
interface TableFacts {
  readonly schema: string;
  readonly name: string;
  /** `pg_class.relreplident`: d default, n nothing, f full, i index. */
  readonly identity: string;
  /** Columns whose old values are logged; empty for full and nothing. */
  readonly columns: readonly string[];
  readonly unlogged: boolean;
}

const FACTS_SQL = `
with recursive tree as (
  select m.position, c.oid from unnest($1::text[], $2::text[]) with ordinality as m(schema, name, position)
  join pg_namespace n on n.nspname = m.schema join pg_class c on c.relnamespace = n.oid and c.relname = m.name
  union
  select t.position, i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid
)
select t.position::text, json_build_object(
  'schema', n.nspname, 'name', c.relname, 'identity', c.relreplident, 'unlogged', c.relpersistence <> 'p',
  'columns', coalesce((
    select json_agg(a.attname order by a.attnum) from pg_index x
    join pg_attribute a on a.attrelid = c.oid and a.attnum = any(x.indkey::int2[])
    where x.indrelid = c.oid and case c.relreplident when 'd' then x.indisprimary when 'i' then x.indisreplident else false end), '[]'))::text,
  exists (select from pg_inherits i join pg_class h on h.oid = i.inhrelid where i.inhparent = c.oid and not h.relispartition)::text
from tree t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') order by t.position, c.oid`;

/** How a table is published: with which columns, or why it cannot be. */
export type Publishable =
  | { readonly logged: LoggedTable; readonly columns: readonly string[] | undefined }
  | { readonly logged: LoggedTable; readonly why: string };

/**
 * Decides for each table. The column list must contain the replica identity of the table and of every partition, or
 * Postgres refuses the *app's* updates; `full` takes no list; and what we log must be in every identity, or the values
 * before a change never arrive.
 */
export async function publishable(
  client: pg.ClientBase,
  tables: readonly LoggedTable[],
): Promise<Publishable[]> {
  if (tables.length === 0) return [];
  const [version] = await run(client, "select current_setting('server_version_num')");
  const rows = await run(client, FACTS_SQL, [
    tables.map((logged) => logged.table.schema),
    tables.map((logged) => logged.table.name),
  ]);
  return tables.map((logged, i) => {
    const own = rows.filter(([position]) => Number(position) === i + 1);
    const facts = own.map(([, json]) => JSON.parse(json ?? "{}") as TableFacts);
    const why = own.some(([, , hasHeirs]) => hasHeirs === "true")
      ? "other tables inherit from it, and their rows would not be seen"
      : refusal(logged, facts);
    if (why !== undefined) return { logged, why };
    const whole = Number(version?.[0]) < 150_000 || facts.some(({ identity }) => identity === "f");
    const columns = new Set(facts.flatMap((member) => member.columns));
    return { logged, columns: whole ? undefined : [...columns].toSorted() };
  });
}

function refusal(logged: LoggedTable, facts: readonly TableFacts[]): string | undefined {
  const generated = logged.columns.find((column) => column.generated);
  if (generated !== undefined)
    return `column ${generated.name} is generated, and not every version publishes those`;
  for (const { schema, name, identity, columns, unlogged } of facts) {
    // A partitioned table has no rows: what its partitions log decides.
    if (logged.table.partitioned && name === logged.table.name && schema === logged.table.schema)
      continue;
    const table = relation(schema, name);
    if (unlogged) return `${table} is not in the WAL: it is unlogged`;
    if (identity === "f") continue;
    const missing = logged.columns.filter((column) => !columns.includes(column.name));
    if (missing.length === 0) continue;
    const names = missing.map((column) => ident(column.name)).join(", ");
    const found = columns.length === 0 ? "nothing" : columns.map(ident).join(", ");
    return `the values before a change of ${names} are needed, and the replica identity of ${table} logs ${found}: alter table ${table} replica identity full`;
  }
  return undefined;
}

/** What stands in the way of the wal feed on one side, each with what to do; empty: nothing. Changes nothing. */
export async function walProblems(
  client: pg.ClientBase,
  side: Side,
  tables: readonly LoggedTable[],
): Promise<string[]> {
  if (tables.length === 0) return [];
  const [row] = await run(
    client,
    `select current_setting('wal_level'),
       (current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots))::text,
       (current_setting('max_wal_senders')::int - (select count(*) from pg_stat_replication))::text,
       (select (rolsuper or rolreplication or exists (
          select from pg_roles m where m.rolname = 'rds_replication' and pg_has_role(current_user, m.oid, 'MEMBER')))::text
        from pg_roles where rolname = current_user),
       has_database_privilege(current_database(), 'CREATE')::text, quote_ident(current_user), quote_ident(current_database())`,
  );
  const [level, slots, senders, replication, create, role, database] = row ?? [];
  const has = (await findSlot(client, side)) !== undefined;
  const problems: string[] = [];
  if (level !== "logical")
    problems.push(
      `wal_level is ${level}, expected logical: alter system set wal_level = logical, then restart the server`,
    );
  if (!has && Number(slots) < 1)
    problems.push(
      "no replication slot is free: raise max_replication_slots, or drop one that is not used",
    );
  if (!has && Number(senders) < 1) problems.push("no WAL sender is free: raise max_wal_senders");
  if (replication !== "true")
    problems.push(`role ${role} may not replicate: alter role ${role} replication`);
  if (create !== "true")
    problems.push(
      `role ${role} may not create a publication: grant create on database ${database} to ${role}`,
    );
  for (const found of await publishable(client, tables))
    if ("why" in found) problems.push(`table ${found.logged.name}: ${found.why}`);
  return problems.length === 0
    ? []
    : problems.map((problem) => `feed: wal: ${problem}, or use feed: trigger`);
}

/** Throws DATABASE_UNFIT with all of them. */
export async function assertFitForWal(
  client: pg.ClientBase,
  side: Side,
  tables: readonly LoggedTable[],
): Promise<void> {
  const problems = await walProblems(client, side, tables);
  if (problems.length === 0) return;
  throw new CrossfadeError(
    "DATABASE_UNFIT",
    `${side} database:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
    { hint: "Nothing was changed. Put this right in the database, then run the command again." },
  );
}
