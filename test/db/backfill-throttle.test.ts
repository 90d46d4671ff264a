import { setTimeout } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { Pacer } from "../../backfill/pacer.ts";
import type { Plan } from "../../config/plan-types.ts";
import { progress } from "../../store/control/chunk-ledger.ts";
import { readPace } from "../../store/control/pace.ts";
import { readMigration } from "../../store/control/migration.ts";
import { beatSidecar, readSidecars } from "../../store/control/sidecars.ts";
import { readWorkers } from "../../store/control/workers.ts";
import { install } from "../../store/control/schema.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import {
  ask,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";

function throttled(plan: Plan, throttle: Partial<Plan["backfill"]["throttle"]>): Plan {
  const backfill = { ...plan.backfill, throttle: { ...plan.backfill.throttle, ...throttle } };
  return { ...plan, backfill };
}

const POLL = { timeout: 30_000, interval: 20 };

test("two machines keep one pace, learnt from what the sidecars see, and it grows again", async () => {
  const plan = throttled(await itemsPlan(), { p99: 1.2 });
  const store = openTestStore(plan.control.database, { plan: plan.name });
  await install(store);
  const pacers = ["a", "b"].map((id) => new Pacer(plan, store, silentLog, id, 20));
  onTestFinished(async () => {
    await Promise.all(pacers.map((pacer) => pacer.close()));
  });
  let requests = 0;
  const look = async (p99: number) => {
    requests += 100;
    const traffic = [
      { side: "old" as const, kind: "read" as const, requests, recent: { count: 100, p99 } },
    ];
    await beatSidecar(store, {
      id: "s1",
      epoch: 1,
      holdAttempt: undefined,
      inFlightWrites: 0,
      listen: "127.0.0.1:1",
      stats: { traffic },
    });
    const migration = await readMigration(store);
    await Promise.all(pacers.map((pacer) => pacer.tick(migration, true)));
    return readPace(store);
  };
  await expect.poll(async () => (await look(10)).baseline["read"], POLL).toBeCloseTo(10);
  // There is a chunk to copy: it begins slowly, and from now on nothing is learnt.
  await store.pool.query(
    `insert into ${store.table("chunk")} (direction, tbl, n, est_rows, plan_version, state, lease_until)
     values ('forward', 'items', 0, 1, 1, 'claimed', clock_timestamp() + interval '1 hour')`,
  );
  await expect.poll(async () => (await look(10)).share, POLL).toBeLessThan(0.2);
  await expect
    .poll(async () => (await look(80)).reason ?? "", POLL)
    .toMatch(/p99 of reads 80 ms > 12 ms \(usual 10 ms\)/);
  for (const pacer of pacers) await pacer.tick(await readMigration(store), true);
  expect(pacers.map((pacer) => pacer.share < 0.3)).toEqual([true, true]);
  await expect.poll(async () => (await look(5)).share, POLL).toBe(1);
  // The copy ends under pressure: what was seen beside it does not become usual.
  await expect.poll(async () => (await look(80)).reason ?? "", POLL).toMatch(/p99 of reads/);
  // A heartbeat for each look at the pace, as it is outside of tests.
  const lookNext = async (p99: number) => {
    await setTimeout(25);
    return look(p99);
  };
  for (let beat = 0; beat < 5; beat += 1) await lookNext(80);
  await store.pool.query(`update ${store.table("chunk")} set state = 'done'`);
  const usual: unknown[] = [];
  for (let beat = 0; beat < 8; beat += 1) usual.push((await lookNext(10)).baseline["read"]);
  expect(Math.max(...usual.map(Number))).toBeLessThan(10.5);
  expect(await readSidecars(store)).toHaveLength(1);
});

test("active sessions slow a running copy down, status says why; tune lifts it while it runs", async () => {
  const plan = throttled(await itemsPlan(), { active: 1 });
  await withClient(plan.old.database, (client) =>
    client.query("insert into items (name, note) select 'n', 'n' from generate_series(1, 20000)"),
  );
  const { store } = await startController(plan);
  runSidecar(plan, "s1");
  runWorkers(plan);
  const sleep = "select pg_sleep(600)";
  const sessions = Array.from({ length: 3 }, () =>
    withClient(plan.old.database, (client) => client.query(sleep)),
  );
  const busy = Promise.allSettled(sessions);
  onTestFinished(async () => {
    await withClient(plan.old.database, (client) =>
      client.query(
        "select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and query = $1",
        [sleep],
      ),
    );
    await busy;
  });
  await ask(plan, "advance", { to: "dual-write" });
  await ask(plan, "tune", { key: "chunk", value: 50 });
  await ask(plan, "advance", { to: "backfill", wait: true });
  await expect
    .poll(async () => (await readWorkers(store, "backfill"))[0]?.stats.throttle, POLL)
    .toMatch(/active sessions > 1/);
  await ask(plan, "tune", { key: "active", value: 1_000 });
  await ask(plan, "tune", { key: "workers", value: 3 });
  await expect
    .poll(async () => (await progress(store, "forward"))[0]?.done, POLL)
    .toBeGreaterThan(60);
  await expect
    .poll(async () => (await readWorkers(store, "backfill"))[0]?.stats.throttle ?? "", POLL)
    .not.toMatch(/active sessions/);
});
