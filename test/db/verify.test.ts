import { expect, onTestFinished, test } from "vitest";
import { runVerify, type VerifyOptions, verifyUnlessBusy } from "../../backfill/verify.ts";
import { VerifyCrew } from "../../backfill/verify-crew.ts";
import type { Plan } from "../../config/plan-types.ts";
import { install } from "../../store/control/schema.ts";
import { lastVerifyRun, readVerifyExamples } from "../../store/control/verify-runs.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, mirrorBeside, SyncWorld } from "../support/sync-world.ts";

const OLD = `create table owners (id int primary key, name text not null);
  create table items (id int primary key, owner int not null references owners, note text);`;
const NEW = `create table owners (id uuid primary key, name text not null);
  create table items (id int primary key, owner_name text not null, owner int not null);
  create table notes (item int primary key references items, body text not null);
  create table kinds (kind text, id int, label text, primary key (kind, id));`;
const FORWARD = [
  mapping("owners", "owners", { set: new Map([["id", "md5(id::text)::uuid"]]) }),
  mapping("items", "items", {
    query: "select i.*, o.name as owner_name from items i join owners o on o.id = i.owner",
    also: { owners: "select id from items where owner = owners.id" },
  }),
  mapping("notes", "items", {
    where: "note is not null",
    set: new Map([
      ["item", "id"],
      ["body", "note"],
    ]),
  }),
  {
    ...mapping("kinds", "owners", {
      set: new Map([
        ["kind", "'owner'"],
        ["label", "name"],
      ]),
    }),
    path: "test.kinds[0]",
  },
  {
    ...mapping("kinds", "items", {
      set: new Map([
        ["kind", "'item'"],
        ["label", "note"],
      ]),
    }),
    path: "test.kinds[1]",
  },
];

/** A world whose mirror runs beside the test, as verify needs fences to pass. */
async function openMirrored(forward = FORWARD) {
  const { oldUrl, newUrl } = await createDatabasePair();
  await withClient(oldUrl, (client) => client.query(OLD));
  await withClient(newUrl, (client) => client.query(NEW));
  const world = await SyncWorld.open({ oldUrl, newUrl, forward });
  const store = openTestStore(oldUrl, { plan: "test" });
  await install(store);
  const stopMirror = mirrorBeside(world);
  onTestFinished(async () => {
    await stopMirror();
    await world.close();
  });
  await world.old.query(
    "insert into owners select n, 'o' || n from generate_series(1, 20) n; insert into items select n, 1 + n % 20, case when n % 2 = 0 then 'n' || n end from generate_series(1, 100) n",
  );
  const verify = ({
    plan = world.plan,
    ...options
  }: Pick<VerifyOptions, "repair" | "tables" | "where" | "sample" | "signal"> & { plan?: Plan }) =>
    runVerify({
      plan,
      store,
      log: silentLog,
      direction: "forward",
      epoch: 1,
      by: "test",
      ...options,
    });
  return { world, store, verify, newUrl };
}

/** Breaks rows as a stray process with the mirror's marker would. */
async function sabotage(newUrl: string, sql: string): Promise<void> {
  await withClient(newUrl, (client) =>
    client.query(`set session_replication_role = replica; ${sql}`),
  );
}

test("verify counts what is missing, extra and different, repairs it, and is clean after", async () => {
  const { store, verify, newUrl } = await openMirrored();
  expect(await verify({ repair: false })).toMatchObject({
    state: "clean",
    missing: 0,
    extra: 0,
    different: 0,
    rows: 20 + 100 + 50 + 120,
  });
  const redacted = await verify({ repair: false, tables: ["owners"] });
  expect(redacted).toMatchObject({ state: "clean", allTables: false });
  await sabotage(
    newUrl,
    `delete from notes where item = 4; delete from items where id = 7; update items set owner_name = 'wrong' where id = 9;
     insert into notes values (3, 'nobody wrote this'); insert into owners values (md5('x')::uuid, 'orphan of a computed key');
     insert into kinds values ('item', 999, 'orphan'), ('stranger', 1, 'made by no mapping')`,
  );
  const dirty = await verify({ repair: false });
  expect(dirty).toMatchObject({ state: "dirty", missing: 2, different: 1, extra: 4 });
  const examples = await readVerifyExamples(store, dirty.id, 20);
  expect(JSON.stringify(examples)).toContain('"id":"9"');
  expect(await verify({ repair: true })).toMatchObject({ state: "clean", repaired: 7 });
  expect(await verify({ repair: false })).toMatchObject({
    state: "clean",
    missing: 0,
    extra: 0,
    different: 0,
  });
});

test("a foreign key that points at nothing is found although no session checked it", async () => {
  const { verify, newUrl } = await openMirrored();
  await verify({ repair: false });
  await sabotage(
    newUrl,
    "alter table notes drop constraint notes_item_fkey; alter table notes add constraint notes_owner foreign key (item) references items not valid; delete from items where id = 8",
  );
  const run = await verify({ repair: false, tables: ["notes"] });
  expect(run).toMatchObject({ state: "dirty", missing: 1 });
});

test("a row whose expression fails differs; its neighbours are compared", async () => {
  const set = new Map([
    ["kind", "'item'"],
    ["label", "(100 / (id - 42))::text"],
  ]);
  const broken = mapping("kinds", "items", { set });
  const { verify } = await openMirrored([broken]);
  expect(await verify({ repair: true })).toMatchObject({
    state: "dirty",
    different: 1,
    missing: 0,
    rows: 100,
  });
});

test("a range that cannot be read is a failure, not a pass", async () => {
  const { verify } = await openMirrored();
  const aborted = AbortSignal.abort(new Error("stopped half way"));
  expect(await verify({ repair: false, signal: aborted })).toMatchObject({
    state: "failed",
    error: "stopped half way",
  });
});

test("examples name the columns, with values redacted as the plan says", async () => {
  const { world, store, verify, newUrl } = await openMirrored();
  await verify({ repair: false });
  await sabotage(newUrl, "update items set owner_name = 'wrong', owner = 0 where id = 9");
  const run = await verify({ repair: false });
  expect(await readVerifyExamples(store, run.id)).toMatchObject([
    {
      kind: "different",
      key: { mapping: "test.items", id: "9" },
      columns: {
        owner_name: { expected: "o10", found: "wrong" },
        owner: { expected: "10", found: "0" },
      },
    },
  ]);
  const plan = { ...world.plan, verify: { ...world.plan.verify, redact: ["items.owner_name"] } };
  const again = await verify({ repair: false, plan });
  expect((await readVerifyExamples(store, again.id))[0]?.columns).toEqual({
    owner_name: { expected: "(redacted)", found: "(redacted)" },
    owner: { expected: "10", found: "0" },
  });
});

test("--where and --sample compare a part, and count for no gate", async () => {
  const { verify, newUrl } = await openMirrored();
  await verify({ repair: false });
  await sabotage(newUrl, "delete from notes where item in (4, 60)");
  const part = await verify({ repair: false, tables: ["items"], where: "id < 50" });
  expect(part).toMatchObject({ state: "dirty", missing: 1, allTables: false });
  for (const where of ["no_such_column = 1", "true) limit 0; drop table items; --"])
    await expect(verify({ repair: false, tables: ["items"], where })).rejects.toThrow(
      /--where on items/,
    );
  expect(await verify({ repair: false, sample: 0.01 })).toMatchObject({ allTables: false });
});

test("the plan's checks: rows on a side, or rows that only one side returns", async () => {
  const { world, store, verify } = await openMirrored();
  const run = (checks: Plan["checks"]) =>
    verify({ repair: false, plan: { ...world.plan, checks } });
  const clean = await run([
    { name: "count", on: "both", sql: "select count(*) from items;" },
    { name: "no stranger", on: "new", sql: "select * from items where owner_name = 'x' -- none" },
  ]);
  expect(clean).toMatchObject({ state: "clean", different: 0 });
  const dirty = await run([
    { name: "odd", on: "old", sql: "select id from items where id = 7" },
    { name: "sides", on: "both", sql: "select id from kinds union all select 1 where false" },
  ]);
  // `kinds` is a table of new only: a check that cannot run is no success.
  expect(dirty).toMatchObject({ state: "failed" });
  const found = await run([{ name: "odd", on: "old", sql: "select id from items where id = 7" }]);
  expect(found).toMatchObject({ state: "dirty", different: 1 });
  expect(JSON.stringify(await readVerifyExamples(store, found.id))).toContain("check odd");
  const writing = await run([
    { name: "w", on: "new", sql: "select setval(pg_get_serial_sequence('x', 'y'), 1)" },
  ]);
  expect(writing.state).toBe("failed");
});

test("rows that are written all the time are told apart from rows that are wrong", async () => {
  const { world, verify, newUrl } = await openMirrored();
  await verify({ repair: false });
  await sabotage(newUrl, "update items set owner_name = 'wrong' where id = 9");
  let writing = true;
  const writer = (async () => {
    while (writing)
      await world.old.query("update items set note = clock_timestamp()::text where id = 8");
  })();
  try {
    const run = await verify({ repair: false, tables: ["items"] });
    expect(run).toMatchObject({ state: "dirty", different: 1, missing: 0, extra: 0 });
  } finally {
    writing = false;
    await writer;
  }
});

test("a run that nobody asked for yields to one that somebody did, and ends when one begins", async () => {
  const { world, store, verify } = await openMirrored();
  const unasked = (rest: () => Promise<void>) =>
    verifyUnlessBusy({
      plan: world.plan,
      store,
      log: silentLog,
      direction: "forward",
      epoch: 1,
      by: "continuous",
      repair: false,
      rest,
    });
  let inner: unknown;
  const overtaken = await unasked(async () => {
    if (inner !== undefined) return;
    inner = "begun";
    expect(await unasked(async () => {})).toBeUndefined();
    inner = await verify({ repair: false });
  });
  expect(inner).toMatchObject({ state: "clean" });
  expect(overtaken).toMatchObject({ state: "failed" });
  expect(await lastVerifyRun(store, "forward")).toMatchObject({ state: "clean", by: "test" });
});

test("a comparison reads each part of a table once, however large the table is", async () => {
  const rows = 100_000;
  const { oldUrl, newUrl } = await createDatabasePair();
  const table = "create table t (a int, b text, note text, primary key (a, b))";
  const fill = `insert into t select n / 10, 'b' || n % 10, 'n' || n from generate_series(1, ${rows}) n`;
  await withClient(oldUrl, (client) => client.query(`${table}; ${fill}`));
  await withClient(newUrl, (client) => client.query(`${table}; ${fill}`));
  const world = await SyncWorld.open({ oldUrl, newUrl, forward: [mapping("t", "t")] });
  onTestFinished(() => world.close());
  const store = openTestStore(oldUrl, { plan: "test" });
  await install(store);
  const touched = () =>
    withClient(newUrl, async (client) => {
      const found = await client.query<{ n: number }>(
        "select (seq_tup_read + idx_tup_fetch)::int as n from pg_stat_user_tables where relname = 't'",
      );
      return found.rows[0]?.n ?? 0;
    });
  const before = await touched();
  const run = await runVerify({
    plan: { ...world.plan, backfill: { ...world.plan.backfill, workers: 3 } },
    store,
    log: silentLog,
    direction: "forward",
    epoch: 1,
    by: "test",
    repair: false,
  });
  expect(run).toMatchObject({ state: "clean", rows });
  // Once for the rows, once for those that nobody owns, once to count; reading from the start for every chunk would be two times more.
  await expect.poll(touched, { timeout: 20_000 }).toBeGreaterThan(before);
  expect((await touched()) - before).toBeLessThan(3.5 * rows);
});

test("several sessions compare a table: each chunk once, and what one of them finds or fails at counts", async () => {
  const rows = 100_000;
  const { oldUrl, newUrl } = await createDatabasePair();
  const fill = `create table t (id int primary key, note text); insert into t select n, 'n' || n from generate_series(1, ${rows}) n`;
  await withClient(oldUrl, (client) => client.query(fill));
  await withClient(newUrl, (client) => client.query(fill));
  const world = await SyncWorld.open({
    oldUrl,
    newUrl,
    forward: [mapping("t", "t", { where: "id <> 70000 or note = 'n70000'" })],
  });
  const stopMirror = mirrorBeside(world);
  onTestFinished(async () => {
    await stopMirror();
    await world.close();
  });
  const store = openTestStore(oldUrl, { plan: "test" });
  await install(store);
  const verify = (repair: boolean) =>
    runVerify({
      plan: { ...world.plan, backfill: { ...world.plan.backfill, workers: 3 } },
      store,
      log: silentLog,
      direction: "forward",
      epoch: 1,
      by: "test",
      repair,
    });
  await sabotage(
    newUrl,
    "delete from t where id in (5, 99999); update t set note = 'x' where id = 50000",
  );
  expect(await verify(false)).toMatchObject({ state: "dirty", missing: 2, different: 1 });
  expect(await verify(true)).toMatchObject({ state: "clean", repaired: 3, rows });
  const crew = await VerifyCrew.open({
    plan: world.plan,
    direction: "forward",
    epoch: 1,
    log: silentLog,
    size: 3,
  });
  onTestFinished(() => crew.close());
  const begun: number[] = [];
  const work = crew.each(
    Array.from({ length: 100 }, (_, n) => n),
    async ({ target }, n) => {
      begun.push(n);
      if (n === 7) throw new Error("unreadable");
      await target.query("select pg_sleep(0.01)");
    },
  );
  await expect(work).rejects.toThrow("unreadable");
  expect(new Set(begun).size).toBe(begun.length);
  expect(begun.length).toBeGreaterThan(7);
  expect(begun.length).toBeLessThan(20);
});
