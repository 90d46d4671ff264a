import { expect, test } from "vitest";
import { progress } from "../../store/control/chunk-ledger.ts";
import { readEvents } from "../../store/control/history.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import { openSession } from "../../store/postgres/session.ts";
import { dropSlot, findSlot } from "../../store/postgres/wal-slot.ts";
import {
  ask,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";
import type { Plan } from "../../config/plan-types.ts";

const rowsOf = async (plan: Plan, side: "old" | "new") => {
  const column = side === "old" ? "name" : "title";
  const { rows } = await withClient(plan[side].database, (client) =>
    client.query(`select id, ${column} as name, note from items order by id`),
  );
  return rows;
};

async function onOld<T>(
  plan: Plan,
  work: (client: Awaited<ReturnType<typeof openSession>>) => Promise<T>,
): Promise<T> {
  const client = await openSession({ url: plan.old.database, name: "old", application: "test" });
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

test(
  "a slot dropped under the mirror is a gap: every table is copied again, deletes included",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan({ feed: "wal" });
    const { store } = await startController(plan);
    runWorkers(plan);
    runSidecar(plan, "s1");
    await ask(plan, "advance", { to: "verify", wait: true });
    await ask(plan, "pause", { what: "mirror" });
    await onOld(plan, async (client) => {
      // Its reader has gone, so nobody keeps the slot.
      await expect.poll(async () => (await findSlot(client, "old"))?.activePid).toBeUndefined();
      await client.query(
        "update public.items set name = 'unseen' where id = 1; delete from public.items where id = 2",
      );
      await dropSlot(client, "old");
    });
    // The new slot waits for this, and the comparison for the new slot.
    await withClient(plan.old.database, async (writer) => {
      await writer.query("begin; select pg_current_xact_id()");
      await ask(plan, "resume", { what: "mirror" });
      const copied = async () => {
        const { gap, gapReport, gapPlanned } = await readMigration(store);
        const tables = await progress(store, "forward");
        return (
          gap !== undefined &&
          gapPlanned === gapReport &&
          tables.every(({ done, chunks }) => done === chunks)
        );
      };
      await expect.poll(copied, { timeout: 30_000 }).toBe(true);
      // Time to begin for a comparison that does not wait.
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      await writer.query("commit");
    });
    const healed = async () =>
      (await readEvents(store)).filter((event) => event.kind === "gap-healed").length > 0 &&
      (await readMigration(store)).gap === undefined;
    // Less than what a comparison waits for a fence that never passes.
    await expect.poll(healed, { timeout: 50_000, interval: 100 }).toBe(true);
    expect(await rowsOf(plan, "new")).toEqual(await rowsOf(plan, "old"));
    await withClient(plan.old.database, (client) =>
      client.query("update items set name = 'seen' where id = 3"),
    );
    await expect
      .poll(async () => (await rowsOf(plan, "new"))[1])
      .toMatchObject({ id: 3, name: "seen" });
  },
);

test("WAL beyond the limit: the mirror is paused, the slot is dropped, and status says why", async () => {
  const made = await itemsPlan({ feed: "wal" });
  const plan: Plan = { ...made, wal: { retainBytes: 2e6 } };
  const { store } = await startController(plan);
  // Nobody follows.
  await ask(plan, "advance", { to: "dual-write" });
  await withClient(plan.old.database, (client) =>
    client.query("select pg_logical_emit_message(false, 'x', repeat('x', 4 * 1024 * 1024))"),
  );
  await expect
    .poll(async () => (await readMigration(store)).paused.mirror, { timeout: 30_000 })
    .toBe(true);
  expect((await readMigration(store)).gap).toContain("more than wal.retain (2.0 MB)");
  await expect.poll(() => onOld(plan, (client) => findSlot(client, "old"))).toBeUndefined();
  await ask(plan, "rollback", { to: "off" });
  expect((await readMigration(store)).gap).toBeUndefined();
});

test("a gap that is found while `advance --wait` waits is healed by it", async () => {
  const plan = await itemsPlan({});
  const { store } = await startController(plan);
  runWorkers(plan);
  runSidecar(plan, "s1");
  await ask(plan, "advance");
  // Nothing is copied, so it waits in backfill.
  await ask(plan, "pause", { what: "backfill" });
  const advanced = ask(plan, "advance", { to: "shadow", wait: true });
  await expect.poll(async () => (await readMigration(store)).phase).toBe("backfill");
  const { phase, epoch } = await readMigration(store);
  await setMigration(store, { phase, epoch }, { gap: "the new database went back" });
  await ask(plan, "resume", { what: "backfill" });
  expect(await advanced).toMatchObject({ phase: "shadow" });
  expect((await readEvents(store)).map(({ kind }) => kind)).toContain("gap-healed");
  expect((await readMigration(store)).gap).toBeUndefined();
  expect(await rowsOf(plan, "new")).toEqual(await rowsOf(plan, "old"));
});

test("a gap that is reported again is copied again; nothing else begins it anew", async () => {
  const plan = await itemsPlan({});
  const { store } = await startController(plan);
  runWorkers(plan);
  runSidecar(plan, "s1");
  await ask(plan, "advance", { to: "verify", wait: true });
  await ask(plan, "pause", { what: "backfill" });
  const { phase, epoch } = await readMigration(store);
  const report = () => setMigration(store, { phase, epoch }, { gap: "the new database went back" });
  const plans = async () => {
    const { rows } = await store.pool.query<{ plans: string }>(
      `select max(plan_version) as plans from ${store.table("chunk")}`,
    );
    return Number(rows[0]?.plans);
  };
  const copied = await plans();
  await report();
  await expect.poll(plans, { timeout: 20_000 }).toBe(copied + 1);
  await report();
  await expect.poll(plans, { timeout: 20_000 }).toBe(copied + 2);
  await expect
    .poll(() => readMigration(store), { timeout: 20_000 })
    .toMatchObject({ gapReport: 2, gapPlanned: 2 });
  // The controller's own work yields to a command, goes on after it, and does not mind what is tuned.
  await expect(ask(plan, "advance", { to: "shadow" })).rejects.toThrow(/gap/);
  await ask(plan, "tune", { key: "workers", value: 1 });
  await ask(plan, "resume", { what: "backfill" });
  await expect
    .poll(async () => (await readMigration(store)).gap, { timeout: 30_000 })
    .toBeUndefined();
  expect(await plans()).toBe(copied + 2);
  expect(await rowsOf(plan, "new")).toEqual(await rowsOf(plan, "old"));
});
