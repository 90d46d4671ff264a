import type pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { planChunks } from "../../store/postgres/chunks.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

/** Counts what is said on a session: one call is one round trip. */
function count(client: pg.Client): () => number {
  let calls = 0;
  const query = client.query.bind(client) as (...given: unknown[]) => unknown;
  client.query = ((...args: unknown[]) => {
    calls += 1;
    return query(...args);
  }) as typeof client.query;
  return () => calls;
}

/** `before` and `after` are called around every statement of a session, with its text. */
function watch(
  client: pg.Client,
  { before, after }: { before?: (text: string) => unknown; after?: (text: string) => unknown },
): void {
  const query = client.query.bind(client) as (...given: unknown[]) => Promise<unknown>;
  client.query = (async (...args: unknown[]) => {
    const [first] = args as [string | { text: string }];
    const text = typeof first === "string" ? first : first.text;
    await before?.(text);
    const result = await query(...args);
    await after?.(text);
    return result;
  }) as unknown as typeof client.query;
}

test("a change is four round trips away from being visible: log, locks, rows, and everything written with its commit", async () => {
  const urls = await createDatabasePair();
  const items = "create table items (id int primary key, n int not null)";
  for (const url of [urls.oldUrl, urls.newUrl])
    await withClient(url, (client) =>
      client.query(`${items}; create table other (id int primary key, n int)`),
    );
  const world = await SyncWorld.open({
    ...urls,
    feed: "trigger",
    forward: [mapping("items", "items"), mapping("other", "other")],
  });
  onTestFinished(() => world.close());
  const { compiled, source, target } = world.engine.context;
  await world.old.query(
    "insert into items select i, 0 from generate_series(1, 100) i; insert into other values (1, 1)",
  );
  for (const driver of compiled.drivers) await planChunks(compiled, driver, source, target, 10);
  // The first passes prepare statements and learn where the keys are.
  for (let n = 1; n <= 2; n += 1) {
    await world.old.query(`update items set n = ${n} where id = 7; update other set n = ${n}`);
    await world.drain();
  }
  const [onSource, onTarget] = [count(source), count(target)];
  await world.old.query("update items set n = 3 where id = 7");
  await world.passes.run();
  // The log, the rows; and after the commit the log's rows are deleted.
  expect(onSource()).toBe(3);
  // Locks; what is written; and after that was seen, the disk.
  expect(onTarget()).toBe(3);
  // Another table is one read more; both are written in one.
  await world.old.query(
    "begin; update items set n = 4 where id = 7; update other set n = 4; commit",
  );
  await world.passes.run();
  expect(onSource()).toBe(3 + 4);
  expect(onTarget()).toBe(3 + 3);
  const { rows } = await world.new.query(
    "select i.n, o.n as other from items i, other o where i.id = 7",
  );
  expect(rows).toEqual([{ n: "4", other: "4" }]);
});

test("what a pass wrote is seen before it is on the disk, and on the disk before the source is told", async () => {
  const urls = await createDatabasePair();
  for (const url of [urls.oldUrl, urls.newUrl])
    await withClient(url, (client) =>
      client.query("create table items (id int primary key, n int not null)"),
    );
  const world = await SyncWorld.open({
    ...urls,
    feed: "trigger",
    forward: [mapping("items", "items")],
  });
  onTestFinished(() => world.close());
  await world.old.query("insert into items values (1, 0)");
  await world.drain();

  const { source, target } = world.engine.context;
  const lsn = async (what: "insert" | "flush") => {
    const { rows } = await world.new.query(`select pg_current_wal_${what}_lsn() - '0/0' as at`);
    return Number(rows[0].at);
  };
  let [before, written, flushed, flushedWhenTold] = [Number.NaN, 0, 0, 0];
  let seen = "";
  watch(target, {
    before: async (text) => {
      if (text.endsWith("commit")) before = await lsn("insert");
    },
    after: async (text) => {
      if (!text.endsWith("commit")) return;
      flushed = await lsn("flush");
      written = await lsn("insert");
      seen = (await world.new.query("select n from items where id = 1")).rows[0].n;
    },
  });
  watch(source, {
    before: async (text) => {
      if (text.includes("crossfade.confirmed")) flushedWhenTold = await lsn("flush");
    },
  });
  for (let n = 1; n <= 20; n += 1) {
    await world.old.query("update items set n = $1 where id = 1", [n]);
    await world.passes.run();
    expect(seen).toBe(String(n));
    expect(flushedWhenTold).toBeGreaterThanOrEqual(written);
  }
  // A fence counts for whoever waits for it: its pass is on the disk when it is seen.
  await world.old.query("update items set n = -1 where id = 1");
  await world.feed.writeFence();
  seen = "";
  await world.passes.run();
  expect(seen).toBe("-1");
  expect(flushed).toBeGreaterThan(before);
  // So does one that was read before, and counts now because nothing is quarantined any more.
  await world.new.query(
    "insert into crossfade.quarantine (direction, mapping, source_table, key, reason, state) values ('forward', 'test.items', 'items', '{9}', 'test', 'quarantined')",
  );
  await world.feed.writeFence();
  await world.passes.run();
  await world.new.query("delete from crossfade.quarantine");
  await world.old.query("update items set n = -2 where id = 1");
  seen = "";
  await world.passes.run();
  expect(seen).toBe("-2");
  expect(flushed).toBeGreaterThan(before);
});
