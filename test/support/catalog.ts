import { withClient } from "./databases.ts";

/**
 * Everything a database's catalog holds that is not Postgres' own, one line each: what an installation adds, changes or leaves.
 * Slots are a server's, and named here with the database they belong to.
 */
export async function catalogOf(url: string): Promise<string[]> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ line: string }>(CATALOG);
    return rows.map(({ line }) => line);
  });
}

const OURS = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'";

const CATALOG = `
select 'schema ' || n.nspname || ' ' || coalesce(n.nspacl::text, '') as line from pg_namespace n where ${OURS}
union all
select 'relation ' || n.nspname || '.' || c.relname || ' ' || concat_ws(' ', c.relkind, c.relpersistence, 'identity ' || c.relreplident::text,
    c.relacl, c.reloptions, 'rls ' || c.relrowsecurity)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where ${OURS}
union all
select 'column ' || n.nspname || '.' || c.relname || '.' || a.attname || ' ' || concat_ws(' ', a.atttypid::regtype, a.attnotnull, a.attidentity,
    a.attacl, pg_get_expr(d.adbin, d.adrelid))
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attnum > 0 and not a.attisdropped and ${OURS}
union all
select 'constraint ' || n.nspname || '.' || c.conname || ' ' || pg_get_constraintdef(c.oid)
  from pg_constraint c join pg_namespace n on n.oid = c.connamespace where ${OURS}
union all
select 'trigger ' || t.tgname || ' on ' || t.tgrelid::regclass || ' ' || t.tgenabled::text
  from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace where ${OURS} and not t.tgisinternal
union all
select 'function ' || p.oid::regprocedure || ' ' || coalesce(p.proacl::text, '') from pg_proc p join pg_namespace n on n.oid = p.pronamespace where ${OURS}
union all
select 'type ' || t.oid::regtype from pg_type t join pg_namespace n on n.oid = t.typnamespace where ${OURS} and t.typtype in ('e', 'd')
union all
select 'rule ' || r.rulename from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace where ${OURS}
union all
select 'event trigger ' || evtname from pg_event_trigger
union all
select 'extension ' || extname from pg_extension
union all
select 'publication ' || pubname from pg_publication
union all
select 'subscription ' || subname from pg_subscription where subdbid = (select oid from pg_database where datname = current_database())
union all
select 'slot ' || slot_name from pg_replication_slots where database = current_database()
union all
select 'setting ' || array_to_string(setconfig, ' ') from pg_db_role_setting where setdatabase = (select oid from pg_database where datname = current_database())
order by 1`;
