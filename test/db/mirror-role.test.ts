import { expect, onTestFinished, test } from "vitest";
import { type Direction, type Side, SIDES, targetOf } from "../../config/words.ts";
import { runMirrorRole } from "../../proxy/mirror/role.ts";
import { changeMigration, readMigration } from "../../store/control/migration.ts";
import { install } from "../../store/control/schema.ts";
import { readWorkers } from "../../store/control/workers.ts";
import { MIRROR_LOCK } from "../../store/postgres/locks.ts";
import { initPosition } from "../../store/postgres/follow-schema.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { installWorld, mapping, testPlan } from "../support/sync-world.ts";

/** What a flip leaves in both databases. */
async function turnSides(
  urls: Readonly<Record<Side, string>>,
  direction: Direction,
  epoch: number,
): Promise<void> {
  for (const side of SIDES)
    await withClient(urls[side], async (client) => {
      await client.query("update crossfade.state set direction = $1, epoch = $2", [
        direction,
        epoch,
      ]);
      const closed = side === targetOf(direction) ? 1 : 0;
      await client.query("select setval($1::regclass, $2)", [`crossfade.guard_${side}`, closed]);
    });
}

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
    await turnSides({ old: oldUrl, new: newUrl }, direction, epoch);
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
  await expect.poll(async () => (await stats())?.state).toBe("running");
  await withClient(newUrl, (client) =>
    client.query("insert into crossfade.log_new (tbl, op) values (0, 'f')"),
  );
  await expect.poll(async () => Number((await stats())?.fence)).toBeGreaterThan(1_000_000);
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
  await expect.poll(async () => (await stats())?.epoch).toBe(3);
  expect(await stats()).toMatchObject({ direction: "forward", fence: "0" });
  // A mirror that turns ends the sessions an earlier one left behind, never its own.
  expect(await listeners()).toEqual([listener]);
});

test("of two mirrors one leads, also while it has nothing to follow; the other is asked for nothing, and takes over", async () => {
  const { oldUrl, newUrl } = await createDatabasePair();
  for (const url of [oldUrl, newUrl])
    await withClient(url, (client) => client.query("create table t (id int primary key)"));
  const plan = testPlan({ oldUrl, newUrl, forward: [mapping("t", "t")] });
  const store = openTestStore(oldUrl, { plan: "test" });
  await install(store);
  await installWorld(plan, "forward");
  const turn = async (direction: "forward" | "reverse", epoch: number) => {
    await turnSides({ old: oldUrl, new: newUrl }, direction, epoch);
    await changeMigration(store, await readMigration(store), {
      phase: direction === "forward" ? "read-new" : "write-new",
      authority: direction === "forward" ? "old" : "new",
      epoch,
    });
  };
  // Nothing is mirrored back.
  await turn("reverse", 2);
  const abort = new AbortController();
  const roles: Promise<void>[] = [];
  const start = () =>
    void roles.push(runMirrorRole({ plan, log: silentLog, signal: abort.signal }));
  onTestFinished(async () => {
    abort.abort();
    await Promise.all(roles);
  });
  const leaders = () =>
    withClient(newUrl, async (client) => {
      const { rows } = await client.query<{ pid: number }>(
        `select l.pid from pg_locks l join pg_database d on d.oid = l.database
         where d.datname = current_database() and l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objid = $2::bigint::oid and l.granted`,
        [MIRROR_LOCK.classId, MIRROR_LOCK.objectId],
      );
      return rows.map(({ pid }) => pid);
    });
  const mirrors = () => readWorkers(store, "mirror");
  const whys = async () => (await mirrors()).map(({ stats }) => stats.why);
  start();
  await expect.poll(leaders).toHaveLength(1);
  const leading = await leaders();
  start();
  await expect.poll(whys).toEqual(["the plan has no reverse mapping", "another mirror works"]);
  const [first] = await mirrors();
  // It looks whether the other lives more than once between two beats.
  const beats = new Set<number>();
  await expect
    .poll(async () => {
      expect(await leaders()).toEqual(leading);
      const [leader, standby] = await mirrors();
      expect(leader?.id).toBe(first?.id);
      beats.add(Math.round((performance.now() - (standby?.seenMs ?? 0)) / 100));
      return beats.size;
    })
    .toBeGreaterThan(5);

  await turn("forward", 3);
  await withClient(oldUrl, (client) =>
    client.query("insert into crossfade.log_old (tbl, op) values (0, 'f')"),
  );
  await expect.poll(async () => Number((await mirrors())[0]?.stats.fence)).toBeGreaterThan(0);
  await withClient(newUrl, (client) => client.query("select pg_terminate_backend($1)", leading));
  await expect
    .poll(async () => (await mirrors()).map(({ id, stats }) => [id === first?.id, stats.state]))
    .toEqual([
      [false, "running"],
      [true, "waiting"],
    ]);
  // What it had passed when it led says nothing any more.
  expect((await mirrors())[1]?.stats.fence).toBe("0");
});
