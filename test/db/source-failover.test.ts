import { expect, onTestFinished, test } from "vitest";
import { startEmbeddedPostgres } from "../../examples/support/embedded-postgres.ts";
import { findGap } from "../../store/postgres/identity.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { startStandby } from "../support/standby.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

test(
  "a source that failed over is a gap at once, before its first checkpoint as a primary",
  { timeout: 240_000 },
  async () => {
    const server = await startEmbeddedPostgres();
    onTestFinished(() => server.stop());
    const oldUrl = await server.createDatabase("shop");
    const { newUrl } = await createDatabasePair();
    for (const url of [oldUrl, newUrl])
      await withClient(url, (client) => client.query("create table items (id int primary key)"));
    const world = await SyncWorld.open({
      oldUrl,
      newUrl,
      feed: "trigger",
      forward: [mapping("items", "items")],
    });
    onTestFinished(() => world.close());
    const { compiled, source, target } = world.engine.context;
    expect(await findGap(compiled, source, target)).toBeUndefined();

    const standby = await startStandby(server, "heir");
    // So much to write that the checkpoint after the promotion takes its time.
    await withClient(oldUrl, (client) =>
      client.query(
        "create table work as select i, repeat('x', 500) from generate_series(1, 10000) i",
      ),
    );
    const heirUrl = standby.url.replace(/postgres$/, "shop");
    const replayed = () =>
      withClient(heirUrl, async (heir) => (await heir.query("select count(*) from work")).rows);
    await expect.poll(replayed, { timeout: 20_000 }).toEqual([{ count: "10000" }]);
    await withClient(heirUrl, async (heir) => {
      await heir.query("select pg_promote(true, 30)");
      expect(await findGap(compiled, heir, target)).toBe(
        "the old database failed over (timeline 2, was 1)",
      );
      const { rows } = await heir.query("select timeline_id from pg_control_checkpoint()");
      expect(rows).toEqual([{ timeline_id: 1 }]);
    });
  },
);
