import type pg from "pg";
import { describeDatabase } from "../config/describe.ts";
import { CrossfadeError } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Side } from "../config/words.ts";
import type { LoggedTable } from "../store/postgres/mapping.ts";
import { findState } from "../store/postgres/state.ts";
import { walProblems } from "../store/postgres/wal-fitness.ts";

const OLDEST_VERSION = 140_000;

export interface SideFacts {
  readonly version: number;
  readonly standby: boolean;
  /** The cluster's own identity: two addresses with the same one are the same server. */
  readonly system: string;
  readonly database: string;
  readonly role: string;
  readonly mayCreate: boolean;
  readonly mayUseTemp: boolean;
  readonly schemaFound: boolean;
  readonly encoding: string;
}

/** What a database says about itself. Reads only. */
export async function readSideFacts(client: pg.Client, plan: Plan, side: Side): Promise<SideFacts> {
  const { rows } = await client.query<Record<keyof SideFacts, string>>(
    `select current_setting('server_version_num') as version, pg_is_in_recovery() as standby, current_database() as database,
       (select system_identifier from pg_control_system())::text as system, current_user as role,
       has_database_privilege(current_database(), 'CREATE')
         or coalesce((select has_schema_privilege(oid, 'CREATE') from pg_namespace where nspname = 'crossfade'), false) as "mayCreate",
       has_database_privilege(current_database(), 'TEMP') as "mayUseTemp",
       exists (select from pg_namespace where nspname = $1) as "schemaFound",
       current_setting('server_encoding') as encoding`,
    [plan[side].schema],
  );
  const row = rows[0];
  if (row === undefined) throw new CrossfadeError("FAILED", `the ${side} database did not answer`);
  return {
    version: Number(row.version),
    standby: row.standby === "t",
    system: row.system,
    database: row.database,
    role: row.role,
    mayCreate: row.mayCreate === "t",
    mayUseTemp: row.mayUseTemp === "t",
    schemaFound: row.schemaFound === "t",
    encoding: row.encoding,
  };
}

/** What the plan maps on a side. */
export interface MappedOnSide {
  readonly tables: readonly string[];
  /** Tables whose changes a feed of this side would carry. */
  readonly logged: readonly LoggedTable[];
}

/** Throws DATABASE_UNFIT with everything that is missing on one side: version, privileges, ownership of mapped tables. */
export async function assertFit(
  client: pg.Client,
  plan: Plan,
  side: Side,
  facts: SideFacts,
  { tables, logged }: MappedOnSide,
): Promise<void> {
  const problems = [
    ...sideProblems(plan, side, facts),
    ...(await ownerProblems(client, plan, side, facts, tables)),
    ...(await policyProblems(client, plan, side, facts, tables)),
    ...(plan.feed === "wal" ? await walProblems(client, side, logged) : []),
  ];
  const other = (await findState(client, side))?.plan;
  if (other !== undefined && other !== plan.name) {
    problems.push(
      `it belongs to another migration, the plan "${other}": finish that one, or remove it with its own \`crossfade clean\``,
    );
  }
  if (problems.length === 0) return;
  const where = `${side} database (${describeDatabase(plan[side].database)})`;
  throw new CrossfadeError(
    "DATABASE_UNFIT",
    `${where}:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
    {
      hint: "Nothing was changed. Put this right in the database, then run the command again.",
    },
  );
}

function sideProblems(plan: Plan, side: Side, facts: SideFacts): string[] {
  const problems: string[] = [];
  if (facts.version < OLDEST_VERSION)
    problems.push(
      `found version ${Math.trunc(facts.version / 10_000)}, expected Postgres 14 or newer`,
    );
  if (facts.standby) problems.push("found a read-only standby, expected the primary");
  if (facts.encoding === "SQL_ASCII")
    problems.push(
      "its encoding is SQL_ASCII, expected one that says what its bytes mean (UTF8, LATIN1, …): bytes that are no UTF-8 could not be carried over exactly. Restore it into a database with the encoding its texts are really in",
    );
  if (!facts.schemaFound) problems.push(`schema ${plan[side].schema} does not exist`);
  if (!facts.mayCreate)
    problems.push(
      `role ${facts.role} may not create the schema crossfade: grant create on database ${facts.database} to ${facts.role}`,
    );
  if (!facts.mayUseTemp)
    problems.push(
      `role ${facts.role} may not create temporary tables: grant temp on database ${facts.database} to ${facts.role}`,
    );
  return problems;
}

/** Triggers that also fire in replica sessions can be set by a table's owner only. */
async function ownerProblems(
  client: pg.Client,
  plan: Plan,
  side: Side,
  facts: SideFacts,
  tables: readonly string[],
): Promise<string[]> {
  const { rows } = await client.query<{ name: string; owner: string }>(
    `select c.relname as name, pg_get_userbyid(c.relowner) as owner
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = any($2::text[]) and not pg_has_role(c.relowner, 'USAGE') order by 1`,
    [plan[side].schema, tables],
  );
  return rows.map(
    ({ name, owner }) =>
      `role ${facts.role} does not own table ${name} and cannot put triggers on it: grant ${owner} to ${facts.role}`,
  );
}

/** Rows hidden by a policy would look deleted: our sessions turn the policies off, and Postgres refuses that to some roles. */
async function policyProblems(
  client: pg.Client,
  plan: Plan,
  side: Side,
  facts: SideFacts,
  tables: readonly string[],
): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = any($2::text[]) and row_security_active(c.oid) order by 1`,
    [plan[side].schema, tables],
  );
  return rows.map(
    ({ name }) =>
      `row-level security of table ${name} applies to role ${facts.role} and could hide rows from it: alter role ${facts.role} bypassrls, or use the table's owner without force row level security`,
  );
}
