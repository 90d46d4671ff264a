import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import pg from "pg";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import {
  type EmbeddedServer,
  startEmbeddedPostgres,
} from "../../examples/support/embedded-postgres.ts";
import { openFeed } from "../../proxy/mirror/open-feed.ts";
import type { FeedChange } from "../../store/postgres/feed.ts";
import { initPosition } from "../../store/postgres/follow-schema.ts";
import { installWalFeed } from "../../store/postgres/install-wal-feed.ts";
import { formatLsn } from "../../store/postgres/lsn.ts";
import { run } from "../../store/postgres/statement.ts";
import { walProblems } from "../../store/postgres/wal-fitness.ts";
import { findSlot } from "../../store/postgres/wal-slot.ts";
import { createDatabasePair, createSingleDatabase, withClient } from "../support/databases.ts";
import { mapping, openTestFeed, SyncWorld, type WorldOptions } from "../support/sync-world.ts";

let server: EmbeddedServer;
let databases = 0;
beforeAll(async () => {
  server = await startEmbeddedPostgres();
});
afterAll(() => server.stop());

/** The source is on a server of its own, where a test may change settings and count WAL. */
async function open(
  tables: string,
  rest: Omit<Partial<WorldOptions>, "oldUrl" | "newUrl"> & Pick<WorldOptions, "forward">,
): Promise<SyncWorld> {
  const oldUrl = await server.createDatabase(`d${(databases += 1)}`);
  const newUrl = await createSingleDatabase();
  for (const url of [oldUrl, newUrl]) await withClient(url, (client) => client.query(tables));
  const world = await SyncWorld.open({ oldUrl, newUrl, feed: "wal", ...rest });
  onTestFinished(() => world.close());
  return world;
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

const ITEMS = "create table items (id int primary key, name text)";
const names = async (client: pg.Client) =>
  run(client, "select id::text, name from items order by id");

test("a commit that no session sees yet is waited for, not lost", async () => {
  const world = await open(ITEMS, { forward: [mapping("items", "items")] });
  const admin = await connect(server.url("postgres"));
  const standby = async (name: string) => {
    await admin.query(`alter system set synchronous_standby_names = '${name}'`);
    await admin.query("select pg_reload_conf()");
  };
  await world.old.query("set synchronous_commit = local");
  await standby("absent");
  const writer = await connect(world.plan.old.database);
  const written = writer.query("insert into items values (1, 'a')");
  try {
    const notYet = async () => {
      try {
        while ((await world.passes.run()) === undefined);
        return "a pass";
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(await notYet()).toContain("not visible yet");
    expect(await names(world.new)).toEqual([]);
  } finally {
    await standby("");
    await written;
  }
  await world.drain();
  expect(await names(world.new)).toEqual([["1", "a"]]);
});

test("a change that arrives when nothing was left to read is said at once; a backlog says nothing", async () => {
  const world = await open(ITEMS, { forward: [mapping("items", "items")] });
  await world.feed.close();
  let said = 0;
  const feed = await openFeed({
    plan: world.plan,
    context: world.engine.context,
    application: "test feed",
    wake: () => (said += 1),
    onGap: async (gap) => {
      throw new Error(`a gap: ${gap}`);
    },
    pause: async () => {},
  });
  onTestFinished(() => feed.close());
  expect(await feed.read(10)).toMatchObject({ size: 0 });
  await world.old.query("insert into items values (1, 'a')");
  await expect.poll(() => said, { timeout: 20_000 }).toBe(1);
  expect(await feed.read(10)).toMatchObject({ size: 1 });
  await world.old.query("insert into items values (2, 'b')");
  await expect.poll(async () => (await feed.read(10)).size, { timeout: 20_000 }).toBe(2);
  expect(said).toBe(1);
});

test("what the mirror wrote is skipped by the other side's feed, and nothing else is", async () => {
  const { oldUrl, newUrl } = await createDatabasePair();
  for (const url of [oldUrl, newUrl]) await withClient(url, (client) => client.query(ITEMS));
  const maps = [mapping("items", "items")];
  const world = await SyncWorld.open({ oldUrl, newUrl, feed: "wal", forward: maps, reverse: maps });
  onTestFinished(() => world.close());
  const { context } = world.engine;
  const { compiled, source, target } = context;
  await installWalFeed(target, "new", compiled.logged);
  await initPosition(source, "reverse", 1);
  await world.old.query("insert into items values (1, 'a'); update items set id = 2");
  await world.drain();
  await world.new.query("insert into items values (9, 'an app')");
  await world.old.query("insert into items values (3, 'c')");
  await world.drain();
  const turned = { ...compiled, direction: "reverse", source: "new", target: "old" } as const;
  const feed = await openTestFeed(world.plan, {
    ...context,
    compiled: turned,
    source: target,
    target: source,
  });
  onTestFinished(() => feed.close());
  const fence = await feed.writeFence();
  const seen: unknown[] = [];
  for (let read: bigint | undefined; read !== fence;) {
    const batch = await feed.read(100);
    seen.push(...batch.changes);
    read = batch.fence;
    await feed.confirm(batch, 1n);
  }
  expect(seen).toEqual([{ kind: "row", table: 1, values: ["9"] }]);
});

test("an idle feed lets go of the WAL that others write", async () => {
  const world = await open(ITEMS, { forward: [mapping("items", "items")] });
  const { source, target } = world.engine.context;
  const before = (await findSlot(source, "old"))?.confirmed ?? 0n;
  const other = await connect(server.url("postgres"));
  for (let i = 0; i < 6; i += 1)
    await other.query("select pg_logical_emit_message(false, 'x', repeat('x', 4 * 1024 * 1024))");
  const { rows } = await other.query("select pg_current_wal_flush_lsn()::text as lsn");
  await expect
    .poll(
      async () => {
        await world.passes.run();
        return (await findSlot(source, "old"))?.confirmed ?? 0n;
      },
      { timeout: 30_000, interval: 50 },
    )
    .toBeGreaterThan(before + 16n * 1024n * 1024n);
  const [stored] = await run(
    target,
    "select (lsn <= $1)::text, lsn::text from crossfade.position",
    [rows[0].lsn],
  );
  // Never confirmed beyond what is stored with the rows.
  expect(formatLsn((await findSlot(source, "old"))?.confirmed ?? 0n)).toBe(stored?.[1]);
});

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

test("a transaction of 300,000 rows passes through in parts; memory stays bounded, and the position before it", async () => {
  const wide = "create table wide (id text primary key)";
  const world = await open(wide, { forward: [mapping("wide", "wide")] });
  await world.feed.close();
  const blocked = async () => {
    const [row] = await run(
      world.old,
      "select (wait_event = 'WalSenderWriteData')::text from pg_stat_activity where datname = current_database() and backend_type = 'walsender'",
    );
    return row?.[0] === "true";
  };
  await world.old.query(
    "insert into wide select lpad(n::text, 120, 'x') from generate_series(1, 300000) n",
  );
  for (const limit of [20, Number.POSITIVE_INFINITY]) {
    const feed = await openTestFeed(world.plan, world.engine.context);
    try {
      const keys = new Set<string>();
      let most = 0;
      const start = memory();
      // Nobody reads for a while: the server keeps what it has to send.
      await expect.poll(blocked, { interval: 100 }).toBe(true);
      for (let batches = 0; keys.size < 300_000 && batches < limit;) {
        const batch = await feed.read(5_000);
        if (batch.changes.length === 0) {
          await new Promise((resolve) => setTimeout(resolve, 2));
          continue;
        }
        batches += 1;
        for (const change of batch.changes)
          keys.add((change as FeedChange).values[0]?.replaceAll("x", "") ?? "");
        if (keys.size < 300_000) expect(batch.position).toBeUndefined();
        await feed.confirm(batch, 1n);
        if (batches % 5 === 0) most = Math.max(most, memory() - start);
      }
      // All of them together are far more.
      if (limit === 20) expect(keys.size).toBeLessThan(300_000);
      else expect(keys.size).toBe(300_000);
      expect(most).toBeLessThan(50e6);
    } finally {
      await feed.close();
    }
  }
});

/** Bytes that live: what V8 has not collected yet says more of V8 than of the feed. */
function memory(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

test("partitions: rows that move between them, and a partition truncated alone", async () => {
  const world = await open(
    `create table parts (region text, id int, name text, primary key (region, id)) partition by list (region);
     create table parts_eu partition of parts for values in ('eu'); create table parts_us partition of parts for values in ('us')`,
    { forward: [mapping("parts", "parts")] },
  );
  const rows = (client: pg.Client) =>
    run(client, "select region, id::text, name from parts order by 1, 2");
  await world.old.query("insert into parts values ('eu', 1, 'a'), ('eu', 2, 'b'), ('us', 3, 'c')");
  await world.old.query("update parts set region = 'us' where id = 1");
  await world.old.query("update parts_eu set name = 'straight' where id = 2");
  await world.drain();
  expect(await rows(world.new)).toEqual(await rows(world.old));
  await world.old.query("truncate parts_us");
  await world.drain();
  expect(await rows(world.new)).toEqual([["eu", "2", "straight"]]);
});

test("replica identities: full and an index are followed, keys may change, values out of line too", async () => {
  const world = await open(
    `create table f (id int, part text, body text, primary key (id)); alter table f replica identity full;
     create table x (code text not null, n int not null, body text); create unique index x_code on x (code, n);
     alter table x replica identity using index x_code`,
    { forward: [mapping("f", "f"), mapping("x", "x")] },
  );
  const rows = async (client: pg.Client) => [
    await run(client, "select * from f order by id"),
    await run(client, "select * from x order by code"),
  ];
  const long = Array.from({ length: 60 }, (_, i) => `md5('${i}')`).join(" || ");
  await world.old.query(`insert into f values (1, 'a', ${long}), (2, 'b', null);
    insert into x values (${long}, 1, 'x'), ('short', 2, null)`);
  await world.drain();
  await world.old.query(`update f set id = 10 where id = 1; update f set part = 'c' where id = 2;
    update x set body = 'changed' where n = 1; update x set code = 'renamed' where n = 2; delete from f where id = 2`);
  await world.drain();
  expect(await rows(world.new)).toEqual(await rows(world.old));
});

test("what cannot be followed is refused beforehand, with what to do", async () => {
  const also = { lines: "item_id" };
  const tables = `${ITEMS}; create table lines (id int primary key, item_id int);`;
  const forward = [mapping("items", "items", { query: "select * from items", also })];
  await expect(open(tables, { forward })).rejects.toMatchObject({
    code: "DATABASE_UNFIT",
    message: expect.stringContaining(
      `table lines: the values before a change of "item_id" are needed, and the replica identity of "public"."lines" logs "id": alter table "public"."lines" replica identity full`,
    ) as string,
  });
  const full = await open(`${tables} alter table lines replica identity full`, { forward });
  const { source, compiled } = full.engine.context;
  await full.old.query("alter table items replica identity nothing");
  await full.old.query("create table special () inherits (lines)");
  expect(await walProblems(source, "old", compiled.logged)).toEqual([
    expect.stringContaining(`replica identity of "public"."items" logs nothing`) as string,
    expect.stringContaining("table lines: other tables inherit from it") as string,
  ]);
});

test("a fence covers what was acknowledged without being flushed", async () => {
  const world = await open(ITEMS, { forward: [mapping("items", "items")] });
  await world.old.query("set synchronous_commit = off");
  for (let id = 0; id < 20; id += 1) {
    await world.old.query("insert into items values ($1, 'async')", [id]);
    await world.drain();
    expect(await names(world.new)).toHaveLength(id + 1);
  }
});
