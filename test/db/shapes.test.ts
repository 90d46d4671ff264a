import { expect, inject, test } from "vitest";
import { validatePlan } from "../../cli/validate.ts";
import type { PlanIssue } from "../../config/errors.ts";
import { compareKeys } from "../../store/postgres/compare.ts";
import { checkMapping, isKeyOnly } from "../../store/postgres/compile-checks.ts";
import { openSession } from "../../store/postgres/session.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { follow, openPair, rows } from "../support/followed-pair.ts";
import { installWorld, mapping, testPlan } from "../support/sync-world.ts";

/** A login that owns everything and may do nothing else. */
async function plainLogin(url: string): Promise<string> {
  const role = `plain_${new URL(url).pathname.slice(1)}`;
  await withClient(url, async (client) => {
    const name = client.escapeIdentifier(role);
    await client.query(`create role ${name} login password 'plain' nosuperuser`);
    await client.query(
      `do $$ declare t record; begin
         for t in select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' loop
           execute format('alter table %I owner to %I', t.relname, '${role}'); end loop;
         execute format('grant all on database %I to %I', current_database(), '${role}'); end $$`,
    );
  });
  const changed = new URL(url);
  changed.username = role;
  changed.password = "plain";
  return changed.toString();
}

const CHILD =
  "create table a (id int primary key); create table b (id int primary key, a_id int references a";

test("without the replica role, a cascade or a trigger on mirrored rows is refused beforehand, by check too", async () => {
  const old = `${CHILD}); `;
  const urls = await openPair(
    old,
    `${CHILD} on delete cascade);
     create function noop() returns trigger language plpgsql as 'begin return null; end';
     create trigger counts after insert on a for each row execute function noop()`,
  );
  const oldUrl = await plainLogin(urls.oldUrl);
  const newUrl = await plainLogin(urls.newUrl);
  const mappings = [mapping("a", "a"), mapping("b", "b")];
  const refused = {
    code: "DATABASE_UNFIT",
    message: expect.stringMatching(/a has the trigger counts\n.*rows of b when one of a goes/),
  };
  const plan = testPlan({ oldUrl, newUrl, forward: mappings });
  await expect(validatePlan(plan)).rejects.toMatchObject(refused);
  await expect(installWorld(plan, "forward")).rejects.toMatchObject(refused);
  const trusted = testPlan({ ...urls, forward: mappings });
  expect((await validatePlan(trusted)).directions).toHaveLength(1);
});

test("without the replica role, rows go in foreign-key order, and a child ahead of its parent waits for it", async () => {
  const schema = `${CHILD} deferrable)`;
  const urls = await openPair(schema, schema);
  const mappings = [mapping("b", "b"), mapping("a", "a")];
  const plain = { oldUrl: await plainLogin(urls.oldUrl), newUrl: await plainLogin(urls.newUrl) };
  const world = await follow(plain, mappings);
  expect(world.engine.replicaRole).toBe(false);
  await world.old.query("insert into a select generate_series(1, 3)");
  await world.old.query("insert into b select n, n from generate_series(1, 3) n");
  await world.drain();
  expect(await rows(world.new, "select id, a_id from b order by id")).toEqual([
    ["1", "1"],
    ["2", "2"],
    ["3", "3"],
  ]);
  // The parent's delete arrives while its child still refers to it on the other side.
  await world.old.query("begin; delete from b where id = 1; delete from a where id = 1; commit");
  await world.old.query("update b set a_id = 3 where id = 2; delete from a where id = 2");
  await world.drain();
  await world.drain();
  expect(await rows(world.new, "select id from a")).toEqual([["3"]]);
  expect(await rows(world.new, "select id, a_id from b order by id")).toEqual([
    ["2", "3"],
    ["3", "3"],
  ]);
  expect(await rows(world.new, "select * from crossfade.quarantine")).toEqual([]);
});

test("with the replica role, triggers of the target do not run for mirrored rows", async () => {
  const urls = await openPair(
    "create table a (id int primary key, n int)",
    `create table a (id int primary key, n int);
     create function twice() returns trigger language plpgsql as 'begin new.n = new.n * 2; return new; end';
     create trigger twice before insert or update on a for each row execute function twice()`,
  );
  const world = await follow(urls, [mapping("a", "a")]);
  await world.old.query("insert into a values (1, 21)");
  await world.drain();
  expect(await rows(world.new, "select n from a")).toEqual([["21"]]);
});

test("a table that others inherit from is refused, on either side; an heir by itself is mapped", async () => {
  const parent =
    "create table a (id int primary key); create table heir (primary key (id)) inherits (a)";
  const plain = "create table a (id int primary key); create table heir (id int primary key)";
  const check = (urls: { oldUrl: string; newUrl: string }, table: string) =>
    validatePlan(testPlan({ ...urls, forward: [mapping(table, table)] }));
  const source = await openPair(parent, plain);
  const target = await openPair(plain, parent);
  await expect(check(source, "a")).rejects.toThrow(/inherit from it \(heir\)/);
  await expect(check(target, "a")).rejects.toThrow(/inherit from it \(heir\)/);
  expect((await check(source, "heir")).tables.old).toEqual(["heir"]);
});

async function encoded(encoding: string): Promise<string> {
  const { newUrl } = await createDatabasePair();
  const name = `enc_${encoding.toLowerCase()}_${new URL(newUrl).pathname.slice(1)}`;
  const admin = new URL(`postgres://postgres:postgres@127.0.0.1:${inject("postgres").oldPort}`);
  admin.pathname = "/postgres";
  await withClient(admin.toString(), (client) =>
    client.query(
      `create database ${name} encoding '${encoding}' lc_collate 'C' lc_ctype 'C' template template0`,
    ),
  );
  admin.pathname = `/${name}`;
  return admin.toString();
}

const TEXTS = `create table t (id int primary key, v text, j jsonb, c char(3), l text[])`;

test("a source that is not UTF-8 is carried over exactly", async () => {
  const { newUrl } = await createDatabasePair();
  const oldUrl = await encoded("LATIN1");
  for (const url of [oldUrl, newUrl]) await withClient(url, (client) => client.query(TEXTS));
  const world = await follow({ oldUrl, newUrl }, [mapping("t", "t")]);
  await world.old.query(
    `insert into t values (1, 'Größe ÿ¡', '{"ß": "é"}', 'ü', array['Å', null])`,
  );
  await world.drain();
  expect(await rows(world.new, "select v, j, c, l from t")).toEqual([
    ["Größe ÿ¡", '{"ß": "é"}', "ü  ", "{Å,NULL}"],
  ]);
});

test("bytes whose meaning is not known are refused", async () => {
  const { newUrl } = await createDatabasePair();
  const oldUrl = await encoded("SQL_ASCII");
  for (const url of [oldUrl, newUrl]) await withClient(url, (client) => client.query(TEXTS));
  await expect(
    validatePlan(testPlan({ oldUrl, newUrl, forward: [mapping("t", "t")] })),
  ).rejects.toMatchObject({ code: "DATABASE_UNFIT", message: expect.stringMatching(/SQL_ASCII/) });
});

test("without a primary key, a unique index over columns that must have values is the key; without any, the table is refused", async () => {
  const schema = `create table t (a int not null, b text not null, c int unique, v text); create unique index on t (b, a);
    create table none (a int unique, v text)`;
  const urls = await openPair(schema, schema);
  await expect(
    validatePlan(testPlan({ ...urls, forward: [mapping("none", "none")] })),
  ).rejects.toThrow(/none has neither a primary key nor a unique index over not-null columns/);
  const world = await follow(urls, [mapping("t", "t")]);
  await world.old.query("insert into t values (1, 'x', null, 'one'), (2, 'x', null, 'two')");
  await world.drain();
  await world.old.query("update t set b = 'y', v = 'moved' where a = 1; delete from t where a = 2");
  await world.drain();
  expect(await rows(world.new, "select a, b, c, v from t")).toEqual([["1", "y", null, "moved"]]);
});

test("row-level security that could hide rows is refused beforehand, on either side; a role that bypasses it is not", async () => {
  const plain = "create table a (id int primary key)";
  const forced = `${plain}; alter table a enable row level security, force row level security; create policy few on a using (id < 10)`;
  for (const [oldSql, newSql, side] of [
    [forced, plain, "old"],
    [plain, forced, "new"],
  ] as const) {
    const urls = await openPair(oldSql, newSql);
    const login = { oldUrl: await plainLogin(urls.oldUrl), newUrl: await plainLogin(urls.newUrl) };
    const forward = [mapping("a", "a")];
    await expect(validatePlan(testPlan({ ...login, forward }))).rejects.toMatchObject({
      code: "DATABASE_UNFIT",
      message: expect.stringMatching(
        new RegExp(`^${side} database[\\s\\S]*row-level security of table a applies to role`),
      ),
    });
    expect((await validatePlan(testPlan({ ...urls, forward }))).directions).toHaveLength(1);
  }
});

test("row-level security that comes later stops the mirror: hidden rows are never taken for deleted ones", async () => {
  const schema = "create table a (id int primary key)";
  const urls = await openPair(schema, schema);
  const login = { oldUrl: await plainLogin(urls.oldUrl), newUrl: await plainLogin(urls.newUrl) };
  const world = await follow(login, [mapping("a", "a")]);
  await world.old.query("insert into a values (1), (20)");
  await world.drain();
  await world.old.query(
    "alter table a enable row level security, force row level security; create policy few on a using (id < 10)",
  );
  await withClient(urls.oldUrl, (client) => client.query("update a set id = id"));
  await expect(world.drain()).rejects.toThrow(/row-level security/);
  expect(await rows(world.new, "select id from a order by id")).toEqual([["1"], ["20"]]);
});

test("triggers of the target that its owner made to fire for replica sessions do fire, and verify sees what they change", async () => {
  const table = "create table a (id int primary key, n int)";
  const urls = await openPair(
    table,
    `${table}; create table seen (what text);
     create function twice() returns trigger language plpgsql as 'begin new.n = new.n * 2; return new; end';
     create function see() returns trigger language plpgsql as 'begin insert into public.seen values (tg_name); return null; end';
     create trigger always before insert on a for each row execute function twice();
     create trigger only_replica after insert on a for each row execute function see();
     create trigger ordinary after insert on a for each row execute function see();
     alter table a enable always trigger always; alter table a enable replica trigger only_replica`,
  );
  const world = await follow(urls, [mapping("a", "a")]);
  await world.old.query("insert into a values (1, 21)");
  await world.drain();
  expect(await rows(world.new, "select n, what from a, seen")).toEqual([["42", "only_replica"]]);
  const { context } = world.engine;
  const [driver] = context.compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  const { differences } = await compareKeys(context, driver, [["1"]], () => true);
  expect(differences).toMatchObject([{ kind: "different", key: ["1"] }]);
});

test("a session that ends while a plan is compiled says nothing about the plan", async () => {
  const schema = "create table t (id int primary key, v text)";
  const urls = await openPair(schema, schema);
  const world = await follow(urls, [mapping("t", "t", { where: "v <> ''" })]);
  const [driver] = world.engine.context.compiled.drivers;
  const [reader] = driver?.readers ?? [];
  const [made] = reader?.mappings ?? [];
  if (driver === undefined || reader === undefined || made === undefined) throw new Error("empty");
  const ended = await openSession({ url: urls.newUrl, name: "new", application: "ended" });
  await withClient(urls.newUrl, (client) =>
    client.query("select pg_terminate_backend($1::int)", [
      (ended as unknown as { processID: number }).processID,
    ]),
  );
  const issues: PlanIssue[] = [];
  await expect(isKeyOnly(ended, driver, reader.columns, "id")).rejects.toThrow(/./);
  await expect(checkMapping(ended, driver, reader.columns, made, issues)).rejects.toThrow(/./);
  expect(issues).toEqual([]);
});
