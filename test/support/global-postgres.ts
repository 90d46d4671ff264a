import pg from "pg";
import type { TestProject } from "vitest/node";
import { startEmbeddedPostgres } from "../../examples/support/embedded-postgres.ts";
import { startInstalledPostgres } from "./installed-postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Two real servers for the whole run: `old` and `new` of a migration live on different ones. */
    postgres: { readonly oldPort: number; readonly newPort: number; readonly version: number };
  }
}

/**
 * CROSSFADE_TEST_POSTGRES names the folder of an installed Postgres' binaries, to run the tests on another version.
 * One pair of servers per run (initdb and start take about a second each); databases are made per test file.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // The servers are one per run, not one per vitest project.
  const installed = process.env["CROSSFADE_TEST_POSTGRES"];
  const settings = {
    // Of hundreds of databases each would get a worker every minute, which is a tenth of all the servers do.
    autovacuum_naptime: "1h",
    // Tests end sessions and servers, never the machine: what a server has written stays. Positions in the WAL move as ever.
    fsync: "off",
  };
  const start = () =>
    installed === undefined
      ? startEmbeddedPostgres({ settings })
      : startInstalledPostgres(installed, settings);
  const [old, next] = await Promise.all([start(), start()]);
  const version = await majorVersion(old.port);
  project.provide("postgres", { oldPort: old.port, newPort: next.port, version });
  return async () => {
    await Promise.all([old.stop(), next.stop()]);
  };
}

async function majorVersion(port: number): Promise<number> {
  const client = new pg.Client({
    connectionString: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
  });
  await client.connect();
  try {
    const { rows } = await client.query("show server_version_num");
    return Math.floor(Number(rows[0].server_version_num) / 10_000);
  } finally {
    await client.end();
  }
}
