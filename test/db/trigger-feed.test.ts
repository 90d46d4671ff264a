import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { acceptGap } from "../../store/postgres/identity.ts";
import { LogRotation } from "../../store/postgres/log-rotation.ts";
import { run } from "../../store/postgres/statement.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, openTestFeed, SyncWorld, type WorldOptions } from "../support/sync-world.ts";

type Forward = WorldOptions["forward"];

async function open(tables: string, forward: Forward): Promise<SyncWorld & { oldUrl: string }> {
  const urls = await createDatabasePair();
  for (const url of [urls.oldUrl, urls.newUrl])
    await withClient(url, (client) => client.query(tables));
  const world = await SyncWorld.open({ ...urls, feed: "trigger", forward });
  onTestFinished(() => world.close());
  return Object.assign(world, { oldUrl: urls.oldUrl });
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

const ROUNDS = 100;
const ITEMS = "create table items (id int primary key, n int not null)";
const openItems = () => open(ITEMS, [mapping("items", "items")]);

async function expectEqual(world: SyncWorld, table = "items"): Promise<void> {
  const sql = `select i::text from ${table} i order by 1`;
  expect(await run(world.new, sql)).toEqual(await run(world.old, sql));
}

/** The tables of the log, and whether they take room on disk. */
const sizes = async (client: pg.Client) =>
  run(
    client,
    `select relname, (pg_relation_size(oid) > 0)::text from pg_class
     where relname like 'log\\_old%' and relkind = 'r' order by 1`,
  );
const turn = async (client: pg.Client) =>
  Number((await run(client, "select last_value::text from crossfade.log_old_turn"))[0]?.[0]);
/** As after many thousand handled rows. */
const rotate = (world: SyncWorld) =>
  new LogRotation("old", world.engine.context.source).handled(1e9);

test("while an old snapshot is open and several clients write, the log stays small and loses nothing", async () => {
  const world = await openItems();
  await world.old.query("insert into items select i, 0 from generate_series(1, 1000) i");
  await world.drain();
  const reader = await connect(world.oldUrl);
  await reader.query("begin isolation level repeatable read; select count(*) from items");
  const writers = await Promise.all([0, 1, 2].map(() => connect(world.oldUrl)));
  let biggest = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const writing = Promise.all(
      writers.map((writer, part) =>
        writer.query("update items set n = n + 1 where id % 3 = $1", [part]),
      ),
    );
    await world.passes.run();
    await writing;
    const [size] = await run(
      world.old,
      "select sum(pg_relation_size(oid))::text from pg_class where relname like 'log\\_old%' and relkind = 'r'",
    );
    biggest = Math.max(biggest, Number(size?.[0]));
  }
  await world.drain();
  await expectEqual(world);
  expect(await run(world.old, "select distinct n::text from items")).toEqual([[String(ROUNDS)]]);
  expect(await run(world.old, "select count(*)::text from crossfade.log_old")).toEqual([["0"]]);
  // No vacuum may take a row while the snapshot is open: one table would be as big as all that was ever logged.
  const BYTES_PER_ROW = 72;
  // A table that could not be locked when it was its turn waits for the next.
  expect(biggest).toBeLessThan(ROUNDS * 1_000 * BYTES_PER_ROW * 0.7);
  await reader.query("select count(*) from items where n = 0").then(({ rows }) => {
    expect(rows).toEqual([{ count: "1000" }]);
  });
});

test("a pass changes no row of the source that stays: with an old snapshot open, every later pass would walk over its versions", async () => {
  const world = await openItems();
  const pass = async () => {
    await world.old.query("insert into items select coalesce(max(id), 0) + 1, 0 from items");
    await world.drain();
  };
  await pass();
  const tables = await run(
    world.old,
    `select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'crossfade'::regnamespace
       and relname not like 'log\\_old%'`,
  );
  const rows = () =>
    Promise.all(tables.map(([table]) => run(world.old, `select ctid::text from ${table}`)));
  const before = await rows();
  expect(before.flat().length).toBeGreaterThan(0);
  await pass();
  expect(await rows()).toEqual(before);
});

test("a pass finds its position also where another session has written it meanwhile", async () => {
  const world = await openItems();
  const pass = async (id: number) => {
    await world.old.query("insert into items values ($1, 0)", [id]);
    await world.passes.run();
    const [row] = await run(world.new, "select pass::text, ctid::text from crossfade.position");
    return row;
  };
  await pass(1);
  await pass(2);
  const [, place] = (await pass(3)) ?? [];
  // As after a VACUUM FULL: another row is where it was.
  await world.new.query("update crossfade.position set source_timeline = source_timeline");
  await world.new.query("vacuum full crossfade.position");
  await world.new.query(
    `insert into crossfade.position select 'reverse', epoch, 0, 0, 70 from crossfade.position`,
  );
  expect(
    await run(world.new, `select ctid::text from crossfade.position where direction = 'forward'`),
  ).not.toEqual([[place]]);
  await pass(4);
  expect(
    await run(world.new, "select direction, pass::text from crossfade.position order by 1"),
  ).toEqual([
    ["forward", "4"],
    ["reverse", "70"],
  ]);
  await expectEqual(world);
});

test("what was confirmed is known although the target was restored: that is a gap, and closes once accepted", async () => {
  const world = await openItems();
  const { context } = world.engine;
  for (const id of [1, 2]) {
    await world.old.query("insert into items values ($1, 0)", [id]);
    await world.drain();
  }
  await expect(openTestFeed(world.plan, context)).resolves.toBeDefined();
  await world.new.query("update crossfade.position set pass = 1");
  await expect(openTestFeed(world.plan, context)).rejects.toThrow(
    "a gap: the new database went back in time (pass 1, but 2 was confirmed)",
  );
  await acceptGap(context.compiled, context.source, context.target, 1);
  await expect(openTestFeed(world.plan, context)).resolves.toBeDefined();
});

test("a table of the log is truncated only once it was seen empty under its lock", async () => {
  const world = await openItems();
  await world.old.query("insert into items values (1, 0)");
  expect(await turn(world.old)).toBe(0);
  await rotate(world);
  expect(await turn(world.old)).toBe(1);
  // Not handled yet: it stays.
  await rotate(world);
  await world.old.query("insert into items values (2, 0)");
  await world.drain();
  await expectEqual(world);
  // Handled, but a transaction that logged there is still open: nobody waits for it, and nothing of it is lost.
  const late = await connect(world.oldUrl);
  await late.query("begin; insert into items values (3, 0)");
  const before = await turn(world.old);
  await rotate(world);
  await rotate(world);
  await rotate(world);
  const files = await sizes(world.old);
  expect(files.find(([name]) => name === `log_old_r${before}`)).toEqual([
    `log_old_r${before}`,
    "true",
  ]);
  expect(await turn(world.old)).not.toBe(before);
  await late.query("commit");
  await world.drain();
  await expectEqual(world);
  await rotate(world);
  await rotate(world);
  const left = (await sizes(world.old)).filter(([, used]) => used === "true");
  expect(left).toEqual([]);
});

test("fences are truncated too, and none that was not read", async () => {
  const world = await openItems();
  const fence = await world.feed.writeFence();
  await rotate(world);
  await world.drain();
  expect(await run(world.new, "select fence::text from crossfade.position")).toEqual([
    [String(fence)],
  ]);
  await rotate(world);
  expect(await sizes(world.old)).toContainEqual(["log_old", "false"]);
  expect(await world.feed.writeFence()).toBeGreaterThan(fence);
});

test("nothing is truncated during an attempt, and not while one is being written down", async () => {
  const world = await openItems();
  await world.old.query("insert into items values (1, 0)");
  await rotate(world);
  await world.drain();
  const used = ["log_old_r0", "true"];
  await world.old.query("update crossfade.state set attempt_ended = false");
  await rotate(world);
  expect(await sizes(world.old)).toContainEqual(used);
  await world.old.query("update crossfade.state set attempt_ended = true");
  const controller = await connect(world.oldUrl);
  await controller.query("begin; select from crossfade.state for update");
  await rotate(world);
  expect(await sizes(world.old)).toContainEqual(used);
  await controller.query("commit");
  await rotate(world);
  expect(await sizes(world.old)).not.toContainEqual(used);
});

test("an app's write is logged whatever the sequence of turns says", async () => {
  const world = await openItems();
  await world.old.query("select setval('crossfade.log_old_turn', 77)");
  await world.old.query("insert into items values (1, 0)");
  await world.drain();
  await expectEqual(world);
});
