import type pg from "pg";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { Passes } from "../../proxy/mirror/pass.ts";
import {
  type EmbeddedServer,
  startEmbeddedPostgres,
} from "../../examples/support/embedded-postgres.ts";
import { type Engine, openEngine } from "../../store/postgres/engine.ts";
import type { Feed } from "../../store/postgres/feed.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, openTestFeed, quiet, SyncWorld } from "../support/sync-world.ts";

/** A server whose WAL reaches the disk only where somebody waits for it, until `crash`. */
let server: EmbeddedServer;
beforeAll(async () => {
  server = await startEmbeddedPostgres({
    settings: { wal_writer_delay: "10s", autovacuum: "off" },
  });
});
afterAll(() => server.stop());

let databases = 0;

async function open(feed: Plan["feed"]): Promise<SyncWorld & { newUrl: string }> {
  const { oldUrl } = await createDatabasePair();
  const newUrl = await server.createDatabase(`new_${(databases += 1)}`);
  for (const url of [oldUrl, newUrl])
    await withClient(url, (client) =>
      client.query("create table items (id int primary key, n int not null)"),
    );
  const world = await SyncWorld.open({
    oldUrl,
    newUrl,
    feed,
    forward: [mapping("items", "items")],
  });
  onTestFinished(() => world.close());
  await world.old.query("insert into items values (1, 0)");
  await world.drain();
  return Object.assign(world, { newUrl });
}

const rowsOf = (url: string) =>
  withClient(
    url,
    async (client) => (await client.query("select id, n from items order by id")).rows,
  );

/** Nothing is written to the disk any more for those who do not wait. Returns how to crash the server; it recovers by itself. */
async function keepFromDisk(url: string): Promise<() => Promise<void>> {
  const walWriter = () =>
    withClient(url, async (client) => {
      const { rows } = await client.query(
        "select pid from pg_stat_activity where backend_type = 'walwriter'",
      );
      return rows[0]?.pid as number | undefined;
    });
  const pid = await walWriter();
  if (pid === undefined) throw new Error("the server has no WAL writer");
  process.kill(pid, "SIGSTOP");
  return async () => {
    process.kill(pid, "SIGKILL");
    const recovered = async () => ![pid, undefined].includes(await walWriter().catch(() => pid));
    await expect.poll(recovered, { timeout: 20_000, interval: 20 }).toBe(true);
  };
}

/** `said` is called with every statement of a session, after it was answered. */
function after(client: pg.Client, said: (text: string) => unknown): void {
  const query = client.query.bind(client) as (...given: unknown[]) => Promise<unknown>;
  client.query = (async (...args: unknown[]) => {
    const [first] = args as [string | { text: string }];
    const result = await query(...args);
    await said(typeof first === "string" ? first : first.text);
    return result;
  }) as unknown as typeof client.query;
}

interface Mirror {
  readonly engine: Engine;
  readonly feed: Feed;
  readonly passes: Passes;
  end(): Promise<void>;
}

/** Begins as a mirror does that comes after another one; a gap fails the test. */
async function nextMirror(plan: Plan): Promise<Mirror> {
  const engine = await openEngine({
    plan,
    direction: "forward",
    epoch: 1,
    role: "test",
    instance: "b",
  });
  const feed = await openTestFeed(plan, engine.context);
  const passes = new Passes(engine.context, feed, quiet);
  await passes.start();
  const end = async () => {
    await feed.close();
    await engine.close();
  };
  return { engine, feed, passes, end };
}

/** Runs passes until the target has as many rows. */
async function follow({ passes }: Mirror, url: string, rows: number): Promise<void> {
  await expect
    .poll(
      async () => {
        while ((await passes.run()) !== undefined);
        return (await rowsOf(url)).length;
      },
      { interval: 5 },
    )
    .toBe(rows);
}

describe.each(["trigger", "wal"] as const)("with feed: %s", (feed) => {
  test("the target crashes between a commit that was seen and the disk: the change comes again", async () => {
    const world = await open(feed);
    const crash = await keepFromDisk(world.newUrl);
    let seen: unknown[] = [];
    after(world.engine.context.target, async (text) => {
      if (!text.endsWith("commit") || seen.length > 0) return;
      seen = await rowsOf(world.newUrl);
      await crash();
    });
    await world.old.query("insert into items values (2, 0)");
    const passed = async () => {
      while (seen.length < 2) await world.passes.run();
    };
    await expect(passed()).rejects.toThrow();
    expect(seen).toEqual([
      { id: 1, n: 0 },
      { id: 2, n: 0 },
    ]);
    // It was lost indeed.
    expect(await rowsOf(world.newUrl)).toEqual([{ id: 1, n: 0 }]);
    await world.feed.close();
    const next = await nextMirror(world.plan);
    onTestFinished(() => next.end());
    await follow(next, world.newUrl, 2);
  });

  test("the mirror dies between the commit and the disk; the target crashes under its successor", async () => {
    const world = await open(feed);
    const crash = await keepFromDisk(world.newUrl);
    after(world.engine.context.target, (text) => {
      if (text.endsWith("commit")) throw new Error("the mirror dies here");
    });
    await world.old.query("insert into items values (2, 0)");
    const passed = async () => {
      for (;;) await world.passes.run();
    };
    await expect(passed()).rejects.toThrow("the mirror dies here");
    expect(await rowsOf(world.newUrl)).toHaveLength(2);
    await world.feed.close();
    const second = await nextMirror(world.plan);
    // What it begins after is told to the source.
    await second.feed.close();
    await crash();
    await second.engine.close();
    const third = await nextMirror(world.plan);
    onTestFinished(() => third.end());
    await follow(third, world.newUrl, 2);
  });

  test("a fence that was seen to be passed is on the disk, and all that came before it", async () => {
    const world = await open(feed);
    const crash = await keepFromDisk(world.newUrl);
    await world.old.query("insert into items values (2, 0)");
    const fence = await world.feed.writeFence();
    const position = (column: "fence" | "read") =>
      withClient(world.newUrl, async (client) => {
        const { rows } = await client.query(`select ${column} as at from crossfade.position`);
        return BigInt(rows[0].at);
      });
    // Whoever compares asks for what was read, also while something stands in quarantine.
    await world.new.query(
      "set synchronous_commit = on; insert into crossfade.quarantine (direction, mapping, source_table, key, reason, state) values ('forward', 'test.items', 'items', '{9}', 'test', 'quarantined')",
    );
    let crashed = false;
    after(world.engine.context.target, async (text) => {
      if (crashed || !text.endsWith("commit") || (await position("read")) < fence) return;
      await crash();
      crashed = true;
    });
    const passed = async () => {
      while (!crashed) await world.passes.run();
    };
    // Its session is gone, which the rest of the pass may or may not need.
    await passed().catch(() => {});
    expect(await rowsOf(world.newUrl)).toHaveLength(2);
    expect(await position("read")).toBeGreaterThanOrEqual(fence);
    expect(await position("fence")).toBeLessThan(fence);
  });
});
