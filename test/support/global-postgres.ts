import type { TestProject } from "vitest/node";
import { startEmbeddedPostgres } from "../../examples/support/embedded-postgres.ts";
import { startInstalledPostgres } from "./installed-postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Two real servers for the whole run: `old` and `new` of a migration live on different ones. */
    postgres: { readonly oldPort: number; readonly newPort: number };
  }
}

/**
 * CROSSFADE_TEST_POSTGRES names the folder of an installed Postgres' binaries, to run the tests on another version.
 * One pair of servers per run (initdb and start take about a second each); databases are made per test file.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // The servers are one per run, not one per vitest project.
  const installed = process.env["CROSSFADE_TEST_POSTGRES"];
  const start = () =>
    installed === undefined ? startEmbeddedPostgres() : startInstalledPostgres(installed);
  const [old, next] = await Promise.all([start(), start()]);
  project.provide("postgres", { oldPort: old.port, newPort: next.port });
  return async () => {
    await Promise.all([old.stop(), next.stop()]);
  };
}
