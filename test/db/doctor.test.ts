import { readFile } from "node:fs/promises";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { renderDiagnosis } from "../../cli/check-view.ts";
import { fixScript } from "../../cli/fix-script.ts";
import { loadPlan } from "../../config/load.ts";
import { seed } from "../../examples/colonycraft/seed.ts";
import { runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { DOCTOR_CASES } from "../support/doctor-cases.ts";
import { type Case, world, examined, diagnosed, set, reverse } from "../support/doctor-world.ts";
import { writePlanFile } from "../support/plan-files.ts";
import { mapping } from "../support/sync-world.ts";

describe("each kind of trouble is found", () => {
  for (const [name, given, expected] of DOCTOR_CASES)
    test(name, async () => {
      const { findings } = await diagnosed(given);
      const { severity, path } = expected;
      const found = findings.filter((one) => one.severity === severity && one.path === path);
      expect(found).toMatchObject([expected]);
      // One trouble is one error: what it leads to is not told again.
      if (severity === "error")
        expect(findings.filter((one) => one.severity === "error")).toEqual(found);
    });
});

test("of a large table a sample is read, and that is said; all rows on request", async () => {
  const plan = await world({
    old: "create table p (id int primary key); create table a (id int primary key, p_id int not null); insert into p select generate_series(1, 3000); insert into a select n, 3001 - n from generate_series(1, 3000) n; analyze p; analyze a",
    new: "create table p (id int primary key); create table a (id int primary key, p_id int not null references p)",
    forward: [mapping("p", "p"), mapping("a", "a")],
    reverse: [reverse("p", "p"), reverse("a", "a")],
  });
  const sampled = await examined(plan, 200);
  for (const entry of sampled.coverage) {
    expect(entry).toMatchObject({
      complete: false,
      rows: 3000,
      how: expect.stringContaining("drawn at random"),
    });
    expect(entry.tried).toBeGreaterThan(0);
    expect(entry.tried).toBeLessThanOrEqual(200);
  }
  expect(
    sampled.findings.find(({ path, severity }) => path === "test.p" && severity === "ok")?.what,
  ).toMatch(/looked at arrive, of about 3,000/);
  expect(sampled.findings).toContainEqual(
    expect.objectContaining({
      severity: "unknown",
      path: "test.a",
      what: expect.stringContaining("were sampled"),
    }),
  );
  expect(sampled.roundTrip).toMatchObject({ different: 0 });
  expect(sampled.estimates.rows).toBe(6000);
  const all = await examined(plan, undefined);
  expect(all.roundTrip).toEqual({ rows: 6000, different: 0, unknown: [] });
  expect(all.findings.every(({ severity }) => severity === "ok")).toBe(true);
  expect(all.estimates.target_rows).toBe(6000);
});

test("where most rows do not even arrive, tries end too", async () => {
  const { findings } = await diagnosed({
    old: "create type mood as enum ('sad', 'glad'); create table a (id int primary key, v mood); insert into a select n, 'glad' from generate_series(1, 2000) n",
    new: "create type mood as enum ('sad'); create table a (id int primary key, v mood)",
    forward: [mapping("a", "a")],
    reverse: [reverse("a", "a")],
  });
  const own = findings.filter(({ path }) => path === "test.a");
  expect(own).toMatchObject([{ severity: "error" }, { severity: "unknown" }]);
  expect(own.reduce((sum, { rows = 0 }) => sum + rows, 0)).toBe(2000);
});

test("where most rows fail, tries end; the rest is not tried and not proven", async () => {
  const { findings, coverage } = await diagnosed({
    old: "create table a (id int primary key, v text); insert into a select n, 'x' from generate_series(1, 5000) n",
    new: "create table a (id int primary key, v int)",
    forward: [mapping("a", "a", { set: set({ v: "v::int" }) })],
  });
  const [failed, ...others] = findings.filter(({ path }) => path.startsWith("test.a"));
  expect(failed).toMatchObject({ severity: "error", what: expect.stringMatching(/^at least/) });
  expect(others).toMatchObject([{ severity: "unknown" }]);
  expect((failed?.rows ?? 0) + (others[0]?.rows ?? 0)).toBe(5000);
  expect(coverage).toMatchObject([{ complete: false, tried: failed?.rows }]);
});

/** Everything that a database holds, as text. */
async function contents(url: string): Promise<unknown> {
  return withClient(url, async (client) => {
    const { rows: catalog } = await client.query(
      `select 'class', oid::text, relname, relkind::text, relfilenode::text from pg_class where relnamespace::regnamespace::text !~ '^pg_toast'
       union all select 'attribute', attrelid::text, attname, atttypid::text, attnum::text from pg_attribute
       union all select 'proc', oid::text, proname, '', '' from pg_proc
       union all select 'schema', oid::text, nspname, '', '' from pg_namespace where nspname !~ '^pg_(toast_)?temp' order by 1, 2, 3, 5`,
    );
    const { rows: tables } = await client.query<{ name: string }>(
      "select oid::regclass::text as name from pg_class where relkind in ('r', 'S') and relnamespace = 'public'::regnamespace order by 1",
    );
    const held: unknown[] = [];
    for (const { name } of tables)
      held.push(name, (await client.query(`select *, ctid, xmin from ${name}`)).rows);
    const { rows: sessions } = await client.query(
      "select 1 from pg_stat_activity where application_name like 'crossfade%' and datname = current_database()",
    );
    return { catalog, held, sessions };
  });
}

test("the command: exit codes, one document, a fix script; and nothing is changed", async () => {
  const urls = await createDatabasePair();
  await withClient(urls.oldUrl, (client) =>
    client.query(
      "create table a (id serial primary key, v text); insert into a (v) values ('1'), ('x')",
    ),
  );
  await withClient(urls.newUrl, (client) =>
    client.query(
      "create table a (id serial primary key, v int, n serial); create table p (id int)",
    ),
  );
  const file = writePlanFile({
    name: "doctor",
    old: { database: urls.oldUrl, app: "http://127.0.0.1:1" },
    new: { database: urls.newUrl, app: "http://127.0.0.1:2" },
    forward: { a: { from: "a", set: { v: "v::int" } } },
    reverse: { a: { from: "a", transform: "./back.ts" } },
  });
  // As users write it: types only from the package, beside the plan.
  writeFileSync(
    join(dirname(file), "back.ts"),
    `import type { Transform } from "crossfade";
     export const transform: Transform<"v", "v"> = ({ v }) => [{ v }];`,
  );
  const before = [await contents(urls.oldUrl), await contents(urls.newUrl)];
  const script = join(mkdtempSync(join(tmpdir(), "crossfade-fix-")), "fix.sql");
  const broken = await runCli(file, "check", "--fix-script", script);
  expect(broken).toMatchObject({
    exit: 1,
    document: {
      ok: false,
      plan: "doctor",
      findings: expect.arrayContaining([
        expect.objectContaining({ severity: "error", path: "forward.a.set.v", rows: 1 }),
      ]),
      round_trip: { rows: 1, different: 0, unknown: [] },
      estimates: { rows: 2 },
    },
  });
  expect([await contents(urls.oldUrl), await contents(urls.newUrl)]).toEqual(before);
  const lines = readFileSync(script, "utf8")
    .split("\n")
    .filter((line) => line !== "");
  expect(lines).toContainEqual(expect.stringMatching(/^-- delete from "public"\."a"/));
  expect(lines.filter((line) => !line.startsWith("--"))).toEqual([
    "\\if :{?old}",
    'analyze "public"."a";',
    "\\endif",
  ]);
  await withClient(urls.oldUrl, (client) => client.query("delete from a where v = 'x'"));
  expect(await runCli(file, "check")).toMatchObject({ exit: 0, document: { ok: true } });
});

test("a fix script holds every fix once, and no line of a value stands outside of a comment", async () => {
  const plan = await world(DOCTOR_CASES[0]?.[1] as Case);
  const script = fixScript(plan, [
    {
      severity: "error",
      path: "forward.a",
      what: "1 row",
      example: { key: { id: "1\ndrop table a;" } },
      fix: { where: "old", text: "delete\nfrom a", destructive: true },
    },
    {
      severity: "warning",
      path: "new.a",
      what: "one\r\ntwo",
      fix: { where: "new", text: "analyze a;", destructive: false },
    },
  ]);
  const statements = script.split("\n").filter((line) => line !== "" && !line.startsWith("--"));
  expect(statements).toEqual(["\\if :{?old}", "\\endif", "\\if :{?new}", "analyze a;", "\\endif"]);
  expect(script).toContain("-- from a");
});

const EXAMPLES = {
  colonycraft: async (url: string) => {
    await withClient(url, async (client) =>
      client.query(await readFile("examples/colonycraft/old-schema.sql", "utf8")),
    );
    await seed({ databaseUrl: url, conversations: 500, users: 10 });
    return 510;
  },
  northwind: async (url: string) => {
    await withClient(url, async (client) =>
      client.query(await readFile("examples/northwind/northwind.sql", "utf8")),
    );
    return withClient(url, async (client) => {
      const { rows } = await client.query<{ n: string }>(
        `select sum((xpath('/row/n/text()', query_to_xml(format('select count(*) as n from %s', oid::regclass), false, true, '')))[1]::text::int)::text as n
         from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace`,
      );
      return Number(rows[0]?.n);
    });
  },
};

for (const [name, load] of Object.entries(EXAMPLES))
  test(`${name}: every row is proven there and back, in 80 columns`, async () => {
    const { oldUrl, newUrl } = await createDatabasePair();
    const total = await load(oldUrl);
    await withClient(newUrl, async (client) =>
      client.query(await readFile(`examples/${name}/new-schema.sql`, "utf8")),
    );
    const plan = loadPlan(`examples/${name}/crossfade.yaml`, {
      OLD_DATABASE_URL: oldUrl,
      NEW_DATABASE_URL: newUrl,
    });
    const diagnosis = await examined(plan);
    const open = diagnosis.findings.filter(
      ({ severity, what }) =>
        severity === "error" || (severity === "unknown" && !what.includes("no rows")),
    );
    expect(open).toEqual([]);
    expect(diagnosis.roundTrip).toMatchObject({ rows: total, different: 0 });
    const long = renderDiagnosis(diagnosis).filter((line) => line.length > 80);
    expect(long).toEqual([]);
  });
