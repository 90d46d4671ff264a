import { expect, test } from "vitest";
import { progress } from "../../store/control/chunk-ledger.ts";
import type { WalkResult } from "../../switchover/walk.ts";
import { ask, itemsPlan, runWorkers, startController } from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";

async function planWith(diskFreeBytes: number | undefined) {
  const plan = await itemsPlan();
  return { ...plan, backfill: { ...plan.backfill, diskFreeBytes } };
}

const dryRun = async (plan: Awaited<ReturnType<typeof planWith>>, to: string) =>
  ((await ask(plan, "advance", { to, dryRun: true })) as WalkResult).steps;

test("what the copy will take is shown before it, and more than backfill.disk_free is refused before anything", async () => {
  const plan = await planWith(8_000);
  const { store } = await startController(plan);
  runWorkers(plan);
  const steps = await dryRun(plan, "shadow");
  expect(steps.map(({ to, estimates }) => [to, estimates !== undefined])).toEqual([
    ["dual-write", false],
    ["backfill", true],
    ["verify", false],
    ["shadow", false],
  ]);
  await ask(plan, "advance");
  await expect(ask(plan, "advance", { wait: true })).rejects.toMatchObject({
    code: "REFUSED",
    message: expect.stringMatching(
      /room: fail, about \d+\.\d MB \(limit at most 0\.0 MB\).*disk_free/,
    ),
  });
  expect(await progress(store, "forward")).toEqual([]);
  const [step] = await dryRun(plan, "backfill");
  expect(step).toMatchObject({ to: "backfill", estimates: { rows: 120, target_rows: 120 } });
  expect(step?.gates?.find(({ name }) => name === "room")).toMatchObject({ state: "fail" });
});

test("a copy that fits goes on; what cannot be estimated does not", async () => {
  const plan = await planWith(1e9);
  await startController(plan);
  runWorkers(plan);
  await ask(plan, "advance");
  // Somebody moves the table away: nothing can be said of it.
  const move = (sql: string) => withClient(plan.old.database, (client) => client.query(sql));
  await move("alter table items rename to elsewhere");
  const [step] = await dryRun(plan, "backfill");
  expect(step?.gates?.find(({ name }) => name === "room")).toMatchObject({ state: "unknown" });
  await move("alter table elsewhere rename to items");
  await expect
    .poll(() => ask(plan, "advance", { to: "backfill", wait: true }).catch(String), {
      timeout: 30_000,
    })
    .toMatchObject({ phase: "backfill" });
});
