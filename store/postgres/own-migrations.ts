import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type pg from "pg";
import { CrossfadeError, messageOf } from "../../config/errors.ts";
import type { Plan } from "../../config/plan-types.ts";
import { relation } from "./quote.ts";
import { applicationName, closeSession, openSession } from "./session.ts";

/** History of the new schema's own migrations: the user's, so `clean` leaves it. */
const HISTORY = { schema: "crossfade_migrations", table: "applied" } as const;
const FILE = /^\d+[-_][\w.-]+\.sql$/;
const UP = /^\s*--[\s-]*up\s+migration/im;
const DOWN = /^\s*--[\s-]*down\s+migration/im;

export interface SchemaStep {
  readonly name: string;
  readonly sql: string;
}

export interface SchemaEntry {
  readonly name: string;
  /** When it ran, as the database writes it; undefined: not yet. */
  readonly at: string | undefined;
}

export interface MigrateOptions {
  /** Seen from the plan's folder. */
  readonly folder: string;
  readonly direction: "up" | "down";
  readonly dryRun: boolean;
  /** At most so many. */
  readonly count: number;
}

/**
 * Runs the new schema's own numbered migrations with node-pg-migrate, each in a transaction, one runner at a time.
 * Returns what ran (or would run), in the order it ran. Throws FAILED naming the file whose SQL failed; what ran before it stays.
 */
export async function migrateSchema(plan: Plan, options: MigrateOptions): Promise<SchemaStep[]> {
  const folder = folderOf(plan, options.folder);
  const files = migrationFiles(folder);
  return withNew(plan, async (client) => {
    const applied = await readApplied(client);
    refuseLost(applied, files, folder);
    const wanted = wantedSteps(files, new Set(applied.map(({ name }) => name)), options).map(
      (name) => stepOf(folder, name, options.direction),
    );
    if (options.dryRun || wanted.length === 0) return wanted;
    const { runner } = await import("node-pg-migrate");
    try {
      await runner({
        dbClient: client,
        dir: folder,
        direction: options.direction,
        count: wanted.length,
        schema: plan.new.schema,
        createSchema: true,
        migrationsSchema: HISTORY.schema,
        migrationsTable: HISTORY.table,
        createMigrationsSchema: true,
        singleTransaction: false,
        log: () => {},
      });
    } catch (error) {
      // The runner leaves the failed transaction open.
      await client.query("rollback");
      const done = new Set((await readApplied(client)).map(({ name }) => name));
      const failed = wanted.find(
        ({ name }) => done.has(bare(name)) === (options.direction === "down"),
      );
      throw new CrossfadeError("FAILED", `${failed?.name ?? folder}: ${messageOf(error)}`, {
        hint: "Nothing of this file was done; those before it stand. crossfade schema status lists them.",
        cause: error,
      });
    }
    return wanted;
  });
}

/** Every migration in order, with when it ran. */
export async function schemaHistory(plan: Plan, folder: string): Promise<SchemaEntry[]> {
  const path = folderOf(plan, folder);
  const files = migrationFiles(path);
  return withNew(plan, async (client) => {
    const applied = await readApplied(client);
    refuseLost(applied, files, path);
    return files.map((name) => ({
      name,
      at: applied.find((entry) => entry.name === bare(name))?.at,
    }));
  });
}

function folderOf(plan: Plan, folder: string): string {
  return resolve(dirname(plan.file), folder);
}

function migrationFiles(folder: string): string[] {
  if (!existsSync(folder))
    throw new CrossfadeError(
      "USAGE",
      `${folder}: no such folder, expected one with numbered .sql files`,
      {
        hint: "Name it with --dir FOLDER, seen from the plan's folder.",
      },
    );
  const files = readdirSync(folder).filter((name) => name.endsWith(".sql"));
  for (const name of files) {
    if (!FILE.test(name))
      throw new CrossfadeError(
        "USAGE",
        `${join(folder, name)}: expected a number first, such as 0001-create-tags.sql`,
      );
  }
  const sorted = files.toSorted((a, b) => numberOf(a) - numberOf(b));
  sorted.forEach((name, i) => {
    const before = sorted[i - 1];
    if (before !== undefined && numberOf(before) === numberOf(name))
      throw new CrossfadeError("USAGE", `${folder}: ${before} and ${name} have the same number`, {
        hint: "Give each migration a number of its own.",
      });
  });
  return sorted;
}

function numberOf(name: string): number {
  return Number.parseInt(name, 10);
}

function wantedSteps(
  files: readonly string[],
  applied: ReadonlySet<string>,
  { direction, count }: MigrateOptions,
): string[] {
  const wanted =
    direction === "up"
      ? files.filter((name) => !applied.has(bare(name)))
      : files.filter((name) => applied.has(bare(name))).toReversed();
  return wanted.slice(0, Math.min(count, wanted.length));
}

function stepOf(folder: string, name: string, direction: "up" | "down"): SchemaStep {
  const text = readFileSync(join(folder, name), "utf8");
  const at = text.search(DOWN);
  // The runner takes a file without the first line whole, its way down included.
  const upAt = text.search(UP);
  if (at >= 0 && (upAt < 0 || upAt > at))
    throw new CrossfadeError(
      "USAGE",
      `${join(folder, name)}: found "-- Down Migration" without a line "-- Up Migration" above it`,
      { hint: "Write that line above what goes up. Nothing was done." },
    );
  if (direction === "up") return { name, sql: at < 0 ? text : text.slice(0, at) };
  if (at < 0)
    throw new CrossfadeError(
      "USAGE",
      `${join(folder, name)}: it has no line "-- Down Migration", so it cannot be taken back`,
      {
        hint: "Write below such a line what undoes the file, then run this again. Nothing was done.",
      },
    );
  return { name, sql: text.slice(at) };
}

/** What ran must still be there: a history with holes proves nothing. */
function refuseLost(
  applied: readonly SchemaEntry[],
  files: readonly string[],
  folder: string,
): void {
  const known = new Set(files.map(bare));
  const lost = applied.filter(({ name }) => !known.has(name)).map(({ name }) => name);
  if (lost.length > 0)
    throw new CrossfadeError(
      "USAGE",
      `${folder}: ${lost.join(", ")} ran on this database, but the file is gone`,
      {
        hint: "Put the file back, or name the right folder with --dir.",
      },
    );
}

/** node-pg-migrate records names without their ending. */
function bare(name: string): string {
  return name.replace(/\.sql$/, "");
}

async function readApplied(client: pg.Client): Promise<SchemaEntry[]> {
  const { rows: found } = await client.query<{ found: string | null }>(
    "select to_regclass($1)::text as found",
    [relation(HISTORY.schema, HISTORY.table)],
  );
  if ((found[0]?.found ?? null) === null) return [];
  const { rows } = await client.query<{ name: string; at: string }>(
    `select name, to_char(run_on, 'YYYY-MM-DD HH24:MI:SS') as at from ${relation(HISTORY.schema, HISTORY.table)} order by id`,
  );
  return rows;
}

async function withNew<T>(plan: Plan, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await openSession({
    url: plan.new.database,
    name: "new database",
    application: applicationName(plan.name, "schema", String(process.pid)),
    parseTypes: true,
  });
  try {
    return await work(client);
  } finally {
    await closeSession(client);
  }
}
