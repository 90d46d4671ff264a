import { expect, test } from "vitest";
import { whyNotDue } from "../../backfill/continuous.ts";
import type { Plan } from "../../config/plan-types.ts";
import { readMigration } from "../../store/control/migration.ts";
import { lastVerifyRun } from "../../store/control/verify-runs.ts";
import {
  ask,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";

const POLL = { timeout: 40_000, interval: 50 };

test("after the first clean comparison everything is compared again unasked; what it finds is not repaired", async () => {
  const base = await itemsPlan();
  const plan: Plan = {
    ...base,
    verify: { ...base.verify, continuous: true },
    gates: { ...base.gates, verifyMaxAgeMs: 2_000 },
  };
  const { store } = await startController(plan);
  runSidecar(plan, "s1");
  runWorkers(plan);
  await ask(plan, "advance", { to: "shadow", wait: true });
  const first = await lastVerifyRun(store, "forward", { onlyClean: true });
  await expect
    .poll(async () => (await lastVerifyRun(store, "forward", { onlyClean: true }))?.by, POLL)
    .toBe("continuous");
  expect((await lastVerifyRun(store, "forward"))?.id).toBeGreaterThan(first?.id ?? 0);
  const { epoch } = await readMigration(store);
  await withClient(plan.new.database, (client) =>
    client.query(
      `set session_replication_role = replica; set crossfade.mirror = 'forward:${epoch}'; delete from items where id = 7`,
    ),
  );
  await expect.poll(async () => (await lastVerifyRun(store, "forward"))?.state, POLL).toBe("dirty");
  expect(await lastVerifyRun(store, "forward")).toMatchObject({ by: "continuous", missing: 1 });
  const migration = await readMigration(store);
  const last = await lastVerifyRun(store, "forward");
  expect(whyNotDue(plan, { ...migration, phase: "verify" }, last)).toContain("phase");
  expect(whyNotDue(plan, { ...migration, gap: "restored" }, last)).toContain("copied again");
  expect(
    whyNotDue({ ...plan, reverse: undefined }, { ...migration, authority: "new" }, last),
  ).toContain("nothing is mirrored");
  expect(whyNotDue(plan, { ...migration, epoch: migration.epoch + 1 }, last)).toBeUndefined();
});
