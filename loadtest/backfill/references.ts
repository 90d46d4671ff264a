import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { type BenchWorld, execute } from "../world.ts";
import { MAPPED, newTable } from "./table.ts";

const exec = promisify(execFile);

/** The limit: COPY piped into the same indexed table, the column computed at the source. */
export async function rawCopy(world: BenchWorld, rows: number, streams: number): Promise<void> {
  const share = Math.ceil(rows / streams);
  await Promise.all(
    Array.from({ length: streams }, (_, i) =>
      pipeCopy(world, `id > ${share * i} and id <= ${share * (i + 1)}`),
    ),
  );
}

export async function emptyTable(world: BenchWorld, table: string): Promise<void> {
  await execute(world.newUrl, newTable(table));
}

async function pipeCopy(world: BenchWorld, where: string): Promise<void> {
  const source = new pg.Client({ connectionString: world.oldUrl });
  const target = new pg.Client({ connectionString: world.newUrl });
  await Promise.all([source.connect(), target.connect()]);
  try {
    const from = source.query(copyTo(`copy (${MAPPED} where ${where}) to stdout (format binary)`));
    await pipeline(from, target.query(copyFrom("copy raw from stdin (format binary)")));
  } finally {
    await Promise.all([source.end(), target.end()]);
  }
}

/** A tool that copies a whole database, or why it cannot. */
export interface Tool {
  readonly name: string;
  /** Undefined: it fits the servers. */
  readonly missing: string | undefined;
  /** Copies all of the old database into `target`, which is empty. */
  run(target: string): Promise<void>;
}

/** pgcopydb and pg_dump | pg_restore as they are installed; they must be as new as the servers. */
export async function installedTools(world: BenchWorld): Promise<Tool[]> {
  const { rows } = await execute(world.oldUrl, "select current_setting('server_version_num') as v");
  const server = Math.floor(Number((rows[0] as { v: string }).v) / 10_000);
  return [
    {
      name: "pg_dump | pg_restore",
      missing: await unfit("pg_dump", / (\d+)\./, server),
      run: (target) => dumpAndRestore(world.oldUrl, target),
    },
    {
      name: "pgcopydb",
      missing: await unfit("pgcopydb", /compatible with Postgres .* (\d+)$/m, server),
      run: (target) => pgcopydb(world.oldUrl, target),
    },
  ];
}

async function unfit(tool: string, version: RegExp, server: number): Promise<string | undefined> {
  try {
    const { stdout } = await exec(tool, ["--version"]);
    const found = Number(version.exec(stdout)?.[1] ?? 0);
    return found >= server ? undefined : `it is for Postgres ${found}, the servers are ${server}`;
  } catch {
    return "it is not installed";
  }
}

async function dumpAndRestore(source: string, target: string): Promise<void> {
  const dump = spawn("pg_dump", ["--format=custom", "--compress=0", "--dbname", source], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const restore = spawn("pg_restore", ["--no-owner", "--dbname", target], {
    stdio: [dump.stdout, "ignore", "inherit"],
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    dump.once("error", reject);
    restore.once("error", reject);
    restore.once("exit", resolve);
  });
  if (code !== 0) throw new Error(`pg_restore ended with code ${code}`);
}

async function pgcopydb(source: string, target: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "crossfade-pgcopydb-"));
  try {
    await exec(
      "pgcopydb",
      // prettier-ignore
      ["clone", "--source", source, "--target", target, "--dir", join(folder, "work"), "--table-jobs", "2", "--index-jobs", "2", "--no-owner"],
      { maxBuffer: 1 << 26 },
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
