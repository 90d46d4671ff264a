import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

interface Steps {
  readonly migrations: readonly {
    readonly name: string;
    readonly at?: string;
    readonly sql?: string;
  }[];
  readonly pending?: number;
}
interface Failure {
  readonly error: { readonly code: string; readonly message: string };
}

let newUrl: string;
let plan: string;
let folder: string;

beforeEach(async () => {
  const pair = await createDatabasePair();
  newUrl = pair.newUrl;
  plan = writePlanFile({
    name: "schema",
    old: { database: pair.oldUrl, app: "http://127.0.0.1:1" },
    new: { database: pair.newUrl, schema: "next", app: "http://127.0.0.1:1" },
    forward: "identity",
  });
  folder = join(dirname(plan), "migrations");
  mkdirSync(folder);
});

function file(name: string, text: string): void {
  writeFileSync(join(folder, name), text);
}

async function tables(): Promise<string[]> {
  const { rows } = await withClient(newUrl, (client) =>
    client.query<{ name: string }>(
      "select relname as name from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = 'next' and relkind = 'r' order by 1",
    ),
  );
  return rows.map(({ name }) => name);
}

test("up in order, status, down, and a dry run that changes nothing", async () => {
  file(
    "2_b.sql",
    "-- Up Migration\ncreate table b (id int references a);\n-- Down Migration\ndrop table b;",
  );
  file(
    "1_a.sql",
    "-- Up Migration\ncreate table a (id int primary key);\n-- Down Migration\ndrop table a;",
  );
  file("10_c.sql", "create table c (id int references b_missing);");
  const dry = await runCli<Steps>(plan, "schema", "up", "--dry-run");
  expect(dry.document.migrations.map(({ name }) => name)).toEqual([
    "1_a.sql",
    "2_b.sql",
    "10_c.sql",
  ]);
  expect(await tables()).toEqual([]);

  const failed = await runCli<Failure>(plan, "schema", "up");
  expect(failed).toMatchObject({
    exit: 1,
    document: { error: { message: expect.stringMatching(/^10_c\.sql: .*b_missing/) } },
  });
  expect(await tables()).toEqual(["a", "b"]);
  const status = await runCli<Steps>(plan, "schema", "status");
  expect(status.document).toMatchObject({
    pending: 1,
    migrations: [
      { name: "1_a.sql", at: expect.any(String) },
      { name: "2_b.sql" },
      { name: "10_c.sql" },
    ],
  });

  file("10_c.sql", "create table c (id int)");
  expect((await runCli<Steps>(plan, "schema", "up")).document.migrations).toHaveLength(1);
  expect(await runCli(plan, "schema", "down")).toMatchObject({
    exit: 2,
    document: { error: { message: expect.stringContaining("-- Down Migration") } },
  });
  file("10_c.sql", "-- Up Migration\ncreate table c (id int);\n-- Down Migration\ndrop table c;");
  const down = await runCli<Steps>(plan, "schema", "down", "2");
  expect(down.document.migrations.map(({ name }) => name)).toEqual(["10_c.sql", "2_b.sql"]);
  expect(await tables()).toEqual(["a"]);
});

test("what cannot be trusted is refused before anything runs", async () => {
  const error = async () => {
    const result = await runCli<Failure>(plan, "schema", "up");
    expect(result.exit).toBe(2);
    return result.document.error.message;
  };
  file("create.sql", "create table a (id int)");
  expect(await error()).toContain("expected a number first");
  rmSync(join(folder, "create.sql"));
  file("1_a.sql", "create table a (id int);\n-- Down Migration\ndrop table a");
  expect(await error()).toContain('without a line "-- Up Migration"');
  file("1_a.sql", "create table a (id int)");
  file("01_b.sql", "create table b (id int)");
  expect(await error()).toContain("have the same number");
  rmSync(join(folder, "01_b.sql"));
  await runCli(plan, "schema", "up");
  rmSync(join(folder, "1_a.sql"));
  expect(await error()).toContain("1_a ran on this database, but the file is gone");
  rmSync(folder, { recursive: true });
  expect(await error()).toContain("no such folder");
});
