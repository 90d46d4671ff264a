import { afterEach, expect, test } from "vitest";
import pg from "pg";
import { awaitFence } from "../../backfill/fence.ts";
import { planChunks } from "../../store/postgres/chunks.ts";
import { chunkLock } from "../../store/postgres/locks.ts";
import { feedIsComplete, installFeed } from "../../store/postgres/install-feed.ts";
import { openEngine } from "../../store/postgres/engine.ts";
import { syncChunk } from "../../store/postgres/sync-chunk.ts";
import { syncKeys } from "../../store/postgres/sync-keys.ts";
import { syncTransaction } from "../../store/postgres/sync.ts";
import type { MappingPlan } from "../../config/plan-types.ts";
import { Passes } from "../../proxy/mirror/pass.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, openTestFeed, quiet, SyncWorld } from "../support/sync-world.ts";
import { testedFeed } from "../support/tested-feed.ts";

const open: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).toReversed()) await close();
});

const TABLE = "create table users (id int primary key, name text not null)";

async function openWorld(): Promise<SyncWorld & { urls: { oldUrl: string; newUrl: string } }> {
  const urls = await createDatabasePair();
  for (const url of [urls.oldUrl, urls.newUrl])
    await withClient(url, (client) => client.query(TABLE));
  const world = await SyncWorld.open({
    ...urls,
    forward: [mapping("users", "users")],
    reverse: [mapping("users", "users")],
  });
  open.push(() => world.close());
  return Object.assign(world, { urls });
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  open.push(() => client.end());
  return client;
}

const ids = async (client: pg.Client) =>
  (await client.query({ text: "select id from users order by id", rowMode: "array" })).rows.map(
    ([id]) => Number(id),
  );

/** Resolves once somebody on `client`'s server waits for a lock. */
async function somebodyWaits(client: pg.Client, count = 1): Promise<void> {
  await expect
    .poll(
      async () =>
        Number(
          (
            await client.query(
              "select count(*)::int as n from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())",
            )
          ).rows[0].n,
        ),
      { interval: 5 },
    )
    .toBeGreaterThanOrEqual(count);
}

test("a row deleted while its chunk is being copied does not come back", async () => {
  const world = await openWorld();
  await world.old.query("insert into users select n, 'u' from generate_series(1, 20) n");
  await world.drain();
  await world.new.query("delete from users");
  const { compiled, source, target } = world.engine.context;
  const [driver] = compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  const { version } = await planChunks(compiled, driver, source, target, 10);

  const blocker = await connect(world.urls.newUrl);
  await blocker.query("begin; lock table users in share mode");
  const copier = await openEngine({
    plan: world.plan,
    direction: "forward",
    epoch: 1,
    role: "test",
    instance: "copier",
  });
  open.push(() => copier.close());
  // The copy has read the chunk and waits to write it.
  const copied = syncChunk(copier.context, driver, { n: 0, lo: null, hi: ["11"], version });
  await somebodyWaits(blocker);
  await world.old.query("delete from users where id = 3");
  const passed = world.drain();
  // The mirror may not overtake: it waits for the chunk's lock.
  await somebodyWaits(blocker, 2);
  await blocker.query("commit");
  await copied;
  await passed;
  expect(await ids(world.new)).toEqual([1, 2, 4, 5, 6, 7, 8, 9, 10]);
});

test("a repair that was paused after reading cannot write what is outdated", async () => {
  const world = await openWorld();
  await world.old.query("insert into users values (1, 'first')");
  await world.drain();
  const repairer = await openEngine({
    plan: world.plan,
    direction: "forward",
    epoch: 1,
    role: "test",
    instance: "repair",
  });
  open.push(() => repairer.close());
  const [driver] = repairer.context.compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  let passed: Promise<void> = Promise.resolve();
  await syncTransaction(
    repairer.context,
    [{ driver, stripes: [0], planVersion: 0 }],
    async (transaction) => {
      await syncKeys(repairer.context, transaction, driver, [["1"]], {
        careful: false,
        defer: false,
      });
      await world.old.query("update users set name = 'second'");
      passed = world.drain();
      // The mirror has the change, and waits: what the repair read must be committed first.
      await somebodyWaits(world.new);
    },
  );
  await passed;
  expect((await world.new.query("select name from users")).rows).toEqual([{ name: "second" }]);
});

test("a lower log id that commits late is found by the next pass", async () => {
  const world = await openWorld();
  const [early, late] = [await connect(world.urls.oldUrl), await connect(world.urls.oldUrl)];
  await early.query("begin; insert into users values (1, 'lower id')");
  await late.query("insert into users values (2, 'higher id')");
  await world.drain();
  expect(await ids(world.new)).toEqual([2]);
  await early.query("commit");
  await world.drain();
  expect(await ids(world.new)).toEqual([1, 2]);
});

// The slot of the wal feed waits for them by itself.
test.skipIf(testedFeed() === "wal")(
  "nothing may be copied before the transactions older than the feed have ended",
  async () => {
    const urls = await createDatabasePair();
    for (const url of [urls.oldUrl, urls.newUrl])
      await withClient(url, (client) => client.query(`${TABLE}; create table other (id int)`));
    const writer = await connect(urls.oldUrl);
    await writer.query("begin; insert into other values (1)");
    const world = await SyncWorld.open({ ...urls, forward: [mapping("users", "users")] });
    open.push(() => world.close());
    expect(await feedIsComplete(world.engine.context.source, "old")).toBe(false);
    await writer.query("insert into users values (7, 'from before')");
    await writer.query("commit");
    // Transactions of the whole server count, so other tests' may have to end too.
    await expect.poll(() => feedIsComplete(world.engine.context.source, "old")).toBe(true);
    await world.drain();
    expect(await ids(world.new)).toEqual([7]);
  },
);

test.skipIf(testedFeed() === "wal")(
  "mirrored rows do not come back through the other side's feed",
  async () => {
    const world = await openWorld();
    const { compiled, target } = world.engine.context;
    await installFeed(
      target,
      "new",
      compiled.logged.map((logged) => ({ ...logged })),
    );
    await world.old.query(
      "insert into users values (1, 'a'); update users set id = 2; delete from users; insert into users values (3, 'b')",
    );
    await world.drain();
    expect(await ids(world.new)).toEqual([3]);
    expect(
      (await world.new.query("select count(*)::text as n from crossfade.log_new")).rows,
    ).toEqual([{ n: "0" }]);
    await world.new.query("insert into users values (9, 'a stray write is logged')");
    expect((await world.new.query("select vals::text from crossfade.log_new")).rows).toEqual([
      { vals: "{9}" },
    ]);
  },
);

test("a fence passes only with everything before it", async () => {
  const world = await openWorld();
  await world.old.query("insert into users select n, 'u' from generate_series(1, 100) n");
  const context = await other(world);
  let passed = false;
  const waiting = awaitFence(context).then(() => (passed = true));
  await expect.poll(() => world.drain().then(() => passed), { interval: 5 }).toBe(true);
  await waiting;
  expect((await ids(world.new)).length).toBe(100);
});

/** So many changes that a pass which begins with what came before them ends within them. */
const BACKLOG = "update users set name = name where id between 100 and 5200";

test.each([
  [
    "the row in its way",
    `update users set name = 'n1' where id = 2; ${BACKLOG}; update users set name = 'n1, moved' where id = 1`,
  ],
  [
    "the row that it changed places with",
    `update users set id = id where id = 2; ${BACKLOG};
     update users set name = case id when 1 then 'n2' else 'n1' end where id in (1, 2)`,
  ],
])("a key that came a pass before %s is not left in quarantine", async (_, writes) => {
  const urls = await createDatabasePair();
  const table = (rule: string) =>
    `create table users (id int primary key, name text not null unique ${rule})`;
  await withClient(urls.oldUrl, (client) => client.query(table("deferrable initially deferred")));
  await withClient(urls.newUrl, (client) => client.query(table("")));
  const world = await SyncWorld.open({ ...urls, forward: [mapping("users", "users")] });
  open.push(() => world.close());
  await world.old.query("insert into users select n, 'n' || n from generate_series(1, 6000) n");
  await world.drain();
  await world.old.query(`begin; ${writes}; commit`);
  await world.drain();
  const named = "select id::text, name from users where id <= 2 order by id";
  expect((await world.new.query(named)).rows).toEqual((await world.old.query(named)).rows);
  expect((await world.new.query("select key, state from crossfade.quarantine")).rows).toEqual([]);
});

async function other(world: SyncWorld) {
  const engine = await openEngine({
    plan: world.plan,
    direction: "forward",
    epoch: 1,
    role: "test",
    instance: "other",
  });
  open.push(() => engine.close());
  return engine.context;
}

test("a plan that was edited does not mistake one table's changes for another's", async () => {
  const urls = await createDatabasePair();
  for (const url of [urls.oldUrl, urls.newUrl])
    await withClient(url, (client) =>
      client.query(
        `${TABLE}; create table accounts (id int primary key); create table more (id int primary key)`,
      ),
    );
  const forward = [mapping("accounts", "accounts"), mapping("users", "users")];
  const world = await SyncWorld.open({ ...urls, forward });
  open.push(() => world.close());
  await world.feed.close();
  await world.old.query("insert into users values (1, 'u')");
  const edited = (mappings: readonly MappingPlan[]) => {
    const plan = { ...world.plan, forward: { kind: "tables" as const, mappings } };
    return openEngine({ plan, direction: "forward", epoch: 1, role: "test", instance: "edited" });
  };
  const fewer = await edited([mapping("users", "users")]);
  open.push(() => fewer.close());
  const feed = await openTestFeed(world.plan, fewer.context);
  open.push(() => feed.close());
  const passes = new Passes(fewer.context, feed, quiet);
  await expect
    .poll(async () => {
      await passes.run();
      return ids(world.new);
    })
    .toEqual([1]);
  await expect(edited([...forward, mapping("more", "more")])).rejects.toMatchObject({
    code: "REFUSED",
    message: expect.stringContaining("table more is not followed") as string,
  });
  const also = mapping("accounts", "accounts", { also: { users: "length(name)" } });
  await expect(edited([also, mapping("users", "users")])).rejects.toMatchObject({
    code: "REFUSED",
    message: expect.stringContaining(
      "of table users the feed knows id, and the plan needs id, name",
    ) as string,
  });
});

test("where a key's chunk is, is known only for one plan of chunks", async () => {
  const world = await openWorld();
  await world.old.query("insert into users select n, 'u' from generate_series(1, 20) n");
  const { compiled, source, target } = world.engine.context;
  const [driver] = compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  await planChunks(compiled, driver, source, target, 10);
  await world.old.query("update users set name = 'v'");
  await world.drain();
  await planChunks(compiled, driver, source, target, 4);
  const copier = await connect(world.urls.newUrl);
  // Users 13 to 16 were in chunk 1 and are in chunk 3.
  const lock = chunkLock("forward", driver.number, 3);
  await copier.query("select pg_advisory_lock($1, $2)", [lock.classId, lock.objectId]);
  await world.old.query("update users set name = 'w' where id = 15");
  const pass = world.drain();
  await somebodyWaits(copier);
  await copier.query("select pg_advisory_unlock($1, $2)", [lock.classId, lock.objectId]);
  await pass;
  const { rows } = await world.new.query("select id from users where name = 'w'");
  expect(rows).toEqual([{ id: "15" }]);
});
