import type pg from "pg";
import { ident } from "./quote.ts";

export interface GrantsOptions {
  /** The role Crossfade is to log in with. */
  readonly role: string;
  readonly schema: string;
  /** Mapped tables; undefined: all of the schema. */
  readonly tables: readonly string[] | undefined;
  readonly feed: "trigger" | "wal";
  /** Indexes of the tables are dropped for the copy and built again. */
  readonly buildsIndexes: boolean;
}

/** One statement, and why it is needed. */
export interface Grant {
  readonly sql: string;
  readonly why: string;
}

interface Facts {
  readonly database: string;
  readonly version: string;
  readonly roleFound: boolean;
  readonly owners: readonly { readonly owner: string; readonly tables: readonly string[] }[];
}

/** Postgres since which these can be granted to a role that is no superuser. */
const PARAMETER_GRANTS = 150_000;
const AUTOVACUUM_ROLE = 170_000;

/**
 * The least a role needs on one side, as statements for a superuser (or whoever may grant each). Reads the catalog only:
 * any login will do.
 */
export async function leastPrivileges(
  client: pg.ClientBase,
  options: GrantsOptions,
): Promise<Grant[]> {
  const facts = await readFacts(client, options);
  const role = ident(options.role);
  const version = Number(facts.version);
  const grants: Grant[] = [];
  const add = (sql: string, why: string) => grants.push({ sql, why });
  if (!facts.roleFound)
    add(
      `create role ${role} login`,
      "the login of Crossfade; give it a password (\\password in psql)",
    );
  add(
    `grant connect, create, temporary on database ${ident(facts.database)} to ${role}`,
    "its own schema crossfade (and crossfade_old at done), and temporary tables for what it copies",
  );
  add(`grant usage on schema ${ident(options.schema)} to ${role}`, "to see the tables");
  for (const { owner, tables } of facts.owners)
    if (owner !== options.role)
      add(
        `grant ${ident(owner)} to ${role}`,
        `only an owner may put triggers that always fire on a table: ${tables.join(", ")}`,
      );
  if (options.buildsIndexes)
    add(
      `grant create on schema ${ident(options.schema)} to ${role}`,
      "backfill.defer: indexes that are dropped for the copy are built again",
    );
  if (version >= PARAMETER_GRANTS)
    add(
      `grant set on parameter session_replication_role to ${role}`,
      "so that no foreign-key action and no trigger of yours runs twice; without it tables are written in foreign-key order",
    );
  add(`grant pg_read_all_stats to ${role}`, "names the session that would block a flip");
  add(
    `grant ${version >= AUTOVACUUM_ROLE ? "pg_signal_autovacuum_worker" : "pg_signal_backend"} to ${role}`,
    "asks an autovacuum in the way of a flip to step aside",
  );
  if (options.feed === "wal")
    add(`alter role ${role} replication`, "feed: wal reads changes by logical decoding");
  return grants;
}

async function readFacts(
  client: pg.ClientBase,
  { role, schema, tables }: GrantsOptions,
): Promise<Facts> {
  const { rows } = await client.query<{ facts: string }>(
    `select json_build_object(
       'database', current_database(),
       'version', current_setting('server_version_num'),
       'roleFound', exists (select from pg_roles where rolname = $1),
       'owners', coalesce((
         select json_agg(json_build_object('owner', owner, 'tables', names) order by owner)
         from (
           select pg_get_userbyid(c.relowner) as owner, json_agg(c.relname order by c.relname) as names
           from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where n.nspname = $2 and c.relkind in ('r', 'p') and not c.relispartition
             and ($3::text[] is null or c.relname = any($3::text[]))
           group by c.relowner) owned), '[]')) as facts`,
    [role, schema, tables ?? null],
  );
  const [row] = rows;
  if (row === undefined) throw new Error("the database did not say what it is");
  return JSON.parse(row.facts) as Facts;
}
