import { expect, onTestFinished, test } from "vitest";
import { runMirrorRole } from "../../proxy/mirror/role.ts";
import { changeMigration, readMigration } from "../../store/control/migration.ts";
import { install } from "../../store/control/schema.ts";
import { readWorkers } from "../../store/control/workers.ts";
import { initPosition } from "../../store/postgres/follow-schema.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { installWorld, mapping, testPlan } from "../support/sync-world.ts";

test("a fence of one direction is never reported as passed in the other", async () => {
  const { oldUrl, newUrl } = await createDatabasePair();
  for (const url of [oldUrl, newUrl])
    await withClient(url, (client) => client.query("create table t (id int primary key)"));
  const plan = testPlan({
    oldUrl,
    newUrl,
    forward: [mapping("t", "t")],
    reverse: [mapping("t", "t")],
  });
  const store = openTestStore(oldUrl, { plan: "test" });
  await install(store);
  await installWorld(plan, "forward");
  await installWorld(plan, "reverse");
  await withClient(oldUrl, (client) => initPosition(client, "reverse", 1));
  // The log of new is far ahead of that of old, as after a time with new as the authority.
  await withClient(newUrl, (client) =>
    client.query("select setval('crossfade.log_new_id', 1000000)"),
  );
  const turn = async (direction: "forward" | "reverse", epoch: number) => {
    for (const url of [oldUrl, newUrl])
      await withClient(url, (client) =>
        client.query("update crossfade.state set direction = $1, epoch = $2", [direction, epoch]),
      );
    await changeMigration(store, await readMigration(store), {
      phase: "write-new",
      authority: direction === "forward" ? "old" : "new",
      epoch,
    });
  };
  await turn("reverse", 2);
  const abort = new AbortController();
  const role = runMirrorRole({ plan, log: silentLog, signal: abort.signal });
  onTestFinished(async () => {
    abort.abort();
    await role;
  });
  const stats = async () => (await readWorkers(store, "mirror"))[0]?.stats;
  await expect.poll(async () => (await stats())?.state, { timeout: 10_000 }).toBe("running");
  await withClient(newUrl, (client) =>
    client.query("insert into crossfade.log_new (tbl, op) values (0, 'f')"),
  );
  await expect
    .poll(async () => Number((await stats())?.fence), { timeout: 10_000 })
    .toBeGreaterThan(1_000_000);
  const listeners = () =>
    withClient(oldUrl, async (client) => {
      const { rows } = await client.query(
        "select pid from pg_stat_activity where datname = current_database() and application_name like 'crossfade listen mirror%'",
      );
      return rows;
    });
  const [listener] = await listeners();
  expect(listener).toBeDefined();
  await turn("forward", 3);
  await expect.poll(async () => (await stats())?.epoch, { timeout: 10_000 }).toBe(3);
  expect(await stats()).toMatchObject({ direction: "forward", fence: "0" });
  // A mirror that turns ends the sessions an earlier one left behind, never its own.
  expect(await listeners()).toEqual([listener]);
});
