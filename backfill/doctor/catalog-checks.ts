import type pg from "pg";
import type { Plan } from "../../config/plan-types.ts";
import { type Side, SIDES } from "../../config/words.ts";
import type { Table } from "../../store/postgres/catalog.ts";
import { allMappings, type CompiledDirection } from "../../store/postgres/mapping.ts";
import { ident, relation } from "../../store/postgres/quote.ts";
import { run } from "../../store/postgres/statement.ts";
import { count, type Finding } from "./finding.ts";

/** Connections that all roles together open on one database, about, beside those of the copy's workers. */
const SESSIONS = 12;

export interface CatalogInput {
  readonly plan: Plan;
  readonly directions: readonly CompiledDirection[];
  readonly sessions: Readonly<Record<Side, pg.Client>>;
  /** The migration is installed: what is on the new side is its own work. */
  readonly installed: boolean;
}

interface Settings {
  readonly version: number;
  readonly encoding: string;
  readonly collation: string;
  readonly free: number;
}

/** What the catalogs and settings of both sides say that a user should know before the start. */
export async function catalogFindings(input: CatalogInput): Promise<Finding[]> {
  const settings = {
    old: await readSettings(input.sessions.old),
    new: await readSettings(input.sessions.new),
  };
  return [
    ...compareServers(settings),
    ...SIDES.flatMap((side) => connections(input.plan, side, settings[side])),
    ...(await missingExtensions(input)),
    ...(await missingStatistics(input)),
    ...targetTriggers(input.directions),
    ...(await ownWithoutIndex(input)),
    ...(await referencesWithoutIndex(input)),
    ...(await targetsWithRows(input)),
  ];
}

async function readSettings(client: pg.Client): Promise<Settings> {
  const [row] = await run(
    client,
    `select current_setting('server_version_num'), current_setting('server_encoding'),
       concat_ws(' ', to_jsonb(d)->>'datlocprovider', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', d.datcollate)),
       (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - (select count(*) from pg_stat_activity where backend_type = 'client backend'))::text
     from pg_database d where d.datname = current_database()`,
  );
  const [version, encoding = "", collation = "", free] = row ?? [];
  return {
    version: Number(version),
    encoding: encoding ?? "",
    collation: collation ?? "",
    free: Number(free),
  };
}

function compareServers(settings: Readonly<Record<Side, Settings>>): Finding[] {
  const { old, new: next } = settings;
  const major = ({ version }: Settings) => Math.trunc(version / 10_000);
  const found: Finding[] = [];
  if (major(next) < major(old))
    found.push({
      severity: "warning",
      path: "new",
      what: `the new server is Postgres ${major(next)}, older than the old one (${major(old)}): SQL of mappings that works on one may not on the other`,
    });
  if (old.encoding !== next.encoding)
    found.push({
      severity: "warning",
      path: "new",
      what: `the databases differ in encoding (${old.encoding} and ${next.encoding}): a text that the other one cannot hold is refused`,
    });
  if (old.collation !== next.collation)
    found.push({
      severity: "warning",
      path: "new",
      what: `the databases differ in collation (${old.collation} and ${next.collation}): texts sort differently on the two sides`,
    });
  return found;
}

function connections(plan: Plan, side: Side, { free }: Settings): Finding[] {
  const needed = SESSIONS + 2 * plan.backfill.workers;
  if (free >= needed) return [];
  return [
    {
      severity: "warning",
      path: side,
      what: `${count(free, "connection")} are free, and the migration opens about ${needed}: raise max_connections, or connect past the pooler's limit`,
      fix: {
        where: side,
        text: "alter system set max_connections = …; -- takes effect after a restart",
        destructive: true,
      },
    },
  ];
}

/** Extensions that the types of mapped columns come from; without them those values travel as plain text. */
async function missingExtensions({ directions, sessions }: CatalogInput): Promise<Finding[]> {
  const used = (side: Side) =>
    run(
      sessions[side],
      `select distinct e.extname from pg_extension e join pg_depend d on d.refobjid = e.oid and d.refclassid = 'pg_extension'::regclass
         and d.classid = 'pg_type'::regclass
       join pg_type t on t.oid = d.objid join pg_attribute a on a.atttypid in (t.oid, t.typarray)
       where a.attrelid = any($1::text[]::regclass[]) order by 1`,
      [tablesOf(directions, side).map((table) => relation(table.schema, table.name))],
    );
  const there = await run(sessions.new, "select extname from pg_extension");
  const names = new Set(there.map(([name]) => name));
  return (await used("old"))
    .map(([name]) => name ?? "")
    .filter((name) => !names.has(name))
    .map((name) => ({
      severity: "warning",
      path: "new",
      what: `the extension ${name}, whose types the old tables use, is not there: those values travel as text, and mappings cannot use its functions`,
      fix: {
        where: "new",
        text: `create extension if not exists ${ident(name)};`,
        destructive: false,
      },
    }));
}

/** Every mapped or logged table of a side. */
export function tablesOf(directions: readonly CompiledDirection[], side: Side): Table[] {
  const tables = new Map<string, Table>();
  for (const direction of directions) {
    if (direction.source === side)
      for (const logged of direction.logged) tables.set(logged.name, logged.table);
    else
      for (const { mapping } of allMappings(direction))
        tables.set(mapping.target.name, mapping.target);
  }
  return [...tables.values()];
}

async function missingStatistics({ directions, sessions }: CatalogInput): Promise<Finding[]> {
  const found: Finding[] = [];
  for (const side of SIDES) {
    for (const table of tablesOf(directions, side)) {
      const name = relation(table.schema, table.name);
      if (table.estimatedRows >= 0 || !(await hasRows(sessions[side], table))) continue;
      found.push({
        severity: "warning",
        path: `${side}.${table.name}`,
        what: "was never analysed: plans of its queries, and estimates of its size, are guesses",
        fix: { where: side, text: `analyze ${name};`, destructive: false },
      });
    }
  }
  return found;
}

async function hasRows(client: pg.Client, table: Table): Promise<boolean> {
  const rows = await run(client, `select from ${relation(table.schema, table.name)} limit 1`);
  return rows.length > 0;
}

function targetTriggers(directions: readonly CompiledDirection[]): Finding[] {
  return directions.flatMap((direction) => {
    const targets = new Map(
      allMappings(direction).map(({ mapping }) => [mapping.target.name, mapping.target]),
    );
    return [...targets.values()]
      .filter(({ userTriggers }) => userTriggers.length > 0)
      .map((table): Finding => ({
        severity: "warning",
        path: `${direction.target}.${table.name}`,
        what: `its triggers (${table.userTriggers.join(", ")}) do not run for rows that are copied or mirrored: what they would write must come from a mapping`,
      }));
  });
}

/** Tables smaller than this are scanned in no time. */
const LARGE_ROWS = 10_000;

/** Whether some index of a table begins with one of the columns. */
async function indexed(
  client: pg.Client,
  table: Table,
  columns: readonly string[],
): Promise<boolean> {
  const [row] = await run(
    client,
    `select exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
       where i.indrelid = $1::text::regclass and i.indisvalid and i.indpred is null and a.attname = any($2::text[]))::text`,
    [relation(table.schema, table.name), columns],
  );
  return row?.[0] === "true";
}

const createIndex = (table: Table, columns: readonly string[]) =>
  `create index concurrently on ${relation(table.schema, table.name)} (${columns.map(ident).join(", ")});`;

/** Every sync of a key looks its target rows up by the columns of `own`. */
async function ownWithoutIndex({ directions, sessions }: CatalogInput): Promise<Finding[]> {
  const found: Finding[] = [];
  for (const direction of directions) {
    for (const { driver, mapping } of allMappings(direction)) {
      if (mapping.own.kind === "none") continue;
      const columns = mapping.own.columns.map(({ column }) => column);
      const rows = Math.max(driver.table.estimatedRows, mapping.target.estimatedRows);
      if (rows < LARGE_ROWS) continue;
      const client = sessions[direction.target];
      if (await indexed(client, mapping.target, columns)) continue;
      found.push({
        severity: "warning",
        path: `${mapping.path}.own`,
        what: `no index of ${mapping.target.name} begins with ${columns.join(" or ")}: every change reads the whole table`,
        fix: {
          where: direction.target,
          text: createIndex(mapping.target, columns),
          destructive: false,
        },
      });
    }
  }
  return found;
}

async function referencesWithoutIndex({ directions, sessions }: CatalogInput): Promise<Finding[]> {
  const found: Finding[] = [];
  const [forward] = directions;
  if (forward === undefined) return found;
  const targets = new Map<string, { table: Table; rows: number }>();
  for (const { driver, mapping } of allMappings(forward)) {
    const known = targets.get(mapping.target.name)?.rows ?? mapping.target.estimatedRows;
    const rows = Math.max(known, driver.table.estimatedRows);
    targets.set(mapping.target.name, { table: mapping.target, rows });
  }
  for (const { table, rows } of targets.values()) {
    if (rows < LARGE_ROWS) continue;
    for (const key of table.foreignKeys) {
      if (await indexed(sessions.new, table, key.columns)) continue;
      found.push({
        severity: "warning",
        path: `new.${table.name}`,
        what: `the foreign key ${key.name} (${key.columns.join(", ")}) has no index: deleting or changing a row of ${key.referencedTable} reads the whole table`,
        fix: { where: "new", text: createIndex(table, key.columns), destructive: false },
      });
    }
  }
  return found;
}

/** Rows that are there before anything ran: nobody knows where they come from. */
async function targetsWithRows(input: CatalogInput): Promise<Finding[]> {
  const { directions, sessions, installed } = input;
  const [forward] = directions;
  if (forward === undefined || installed) return [];
  const found: Finding[] = [];
  for (const table of tablesOf([forward], "new")) {
    if (!(await hasRows(sessions.new, table))) continue;
    found.push({
      severity: "warning",
      path: `new.${table.name}`,
      what: "has rows before the migration began: verify will name those that no old row makes, and the first sync of a key overwrites its row",
      fix: {
        where: "new",
        text: `truncate ${relation(table.schema, table.name)};`,
        destructive: true,
      },
    });
  }
  return found;
}
