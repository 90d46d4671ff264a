import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadPlan } from "../../config/load.ts";
import { CliProcess, runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";

interface Drafted {
  readonly plan: string;
  readonly tables: number;
  readonly guessed: number;
  readonly open: readonly { readonly path: string; readonly decide: string }[];
}

function planPath(): string {
  return join(mkdtempSync(join(tmpdir(), "crossfade-init-")), "crossfade.yaml");
}

async function databases(oldSql: string, newSql: string) {
  const pair = await createDatabasePair();
  await withClient(pair.oldUrl, (client) => client.query(oldSql));
  await withClient(pair.newUrl, (client) => client.query(newSql));
  return pair;
}

test("guesses renames and types, marks what it cannot know, and the file loads", async () => {
  const { oldUrl, newUrl } = await databases(
    `create table customers (id int primary key, "CustomerName" text, phone text, age real);
     create table order_items (order_id int, line int, price real, primary key (order_id, line));
     create table categories (category_id int primary key, category_name text);
     create table audit (id int primary key, at timestamptz, what jsonb)`,
    `create table category (id int primary key, name text);
     create table customer (id int primary key, customer_name text, phone text, age numeric(10,2), country text not null);
     create table order_items (order_id bigint, line int, price real, primary key (order_id, line));
     create table tags (id uuid primary key, label text not null)`,
  );
  const file = planPath();
  const result = await runCli<Drafted>(file, "init", "--old", oldUrl, "--new", newUrl);
  expect(result).toMatchObject({ exit: 0, document: { tables: 4, guessed: 3 } });
  expect(readFileSync(file, "utf8")).toBe(result.document.plan);
  expect(result.stdout + result.stderr).not.toContain(":postgres@");

  const env = { OLD_DATABASE_URL: oldUrl, NEW_DATABASE_URL: newUrl };
  const plan = loadPlan(file, env);
  expect(plan.old.database).toBe(oldUrl);
  if (plan.forward.kind !== "tables") throw new Error("expected tables");
  const customer = plan.forward.mappings.find(({ target }) => target === "customer");
  expect(customer).toMatchObject({ from: { table: "customers" } });
  expect([...(customer?.set ?? [])]).toEqual([["customer_name", '"CustomerName"']]);
  const category = plan.forward.mappings.find(({ target }) => target === "category");
  expect([...(category?.set ?? [])]).toEqual([
    ["id", '"category_id"'],
    ["name", '"category_name"'],
  ]);
  const decide = result.document.open.map((point) => `${point.path}: ${point.decide}`);
  expect(decide).toEqual(
    expect.arrayContaining([
      "forward.customer: country (text, not null) has no source: it needs a line under set",
      "forward.customer: age changes its type: real becomes numeric(10,2)",
      "forward.tags: no table of the other side looks like tags: say where its rows come from",
      "forward.order_items: order_id changes its type: integer becomes bigint",
      "reverse.customers: not carried over: country",
    ]),
  );
  expect(result.document.plan).toContain("no mapping reads audit: is nothing lost?");
  for (const { decide: sentence } of result.document.open)
    expect(result.document.plan).toContain(`# decide: ${sentence}`);
});

test("the same tables on both sides are a move: identity, and check agrees", async () => {
  const sql = "create table a (id int primary key, b text); create table c (id int primary key)";
  const { oldUrl, newUrl } = await databases(sql, sql);
  const file = planPath();
  const result = await runCli<Drafted>(file, "init", "--old", oldUrl, "--new", newUrl);
  expect(result.document.plan).toMatch(/^forward: identity$/m);
  expect(result.document.open).toEqual([]);
  const check = new CliProcess(["check", "--plan", file, "--json"], {
    OLD_DATABASE_URL: oldUrl,
    NEW_DATABASE_URL: newUrl,
  });
  expect(await check.ended).toBe(0);
  expect(check.document()).toMatchObject({ ok: true });
});

test("a file in the way, an empty schema and an unreadable URL are refused, and nothing is written", async () => {
  const { oldUrl, newUrl } = await databases("create table a (id int primary key)", "");
  const file = planPath();
  const failure = async (options: string[]) => {
    const result = await runCli<{ error: { code: string; message: string } }>(
      file,
      "init",
      ...options,
    );
    expect(result.exit).toBe(2);
    return result.document.error;
  };
  expect(await failure(["--old", oldUrl, "--new", newUrl])).toMatchObject({
    code: "DATABASE_UNFIT",
    message: expect.stringContaining("new database: found no table in schema public"),
  });
  expect(await failure(["--old", "mysql://x/y", "--new", newUrl])).toMatchObject({
    message: expect.stringContaining("--old: found no readable database URL"),
  });
  expect(await failure(["--old", oldUrl])).toMatchObject({ code: "USAGE" });
  expect(existsSync(file)).toBe(false);
  await runCli(file, "init", "--old", oldUrl, "--new", oldUrl);
  const before = readFileSync(file, "utf8");
  expect(await failure(["--old", oldUrl, "--new", oldUrl])).toMatchObject({
    message: expect.stringContaining("exists already"),
  });
  expect(readFileSync(file, "utf8")).toBe(before);
});
