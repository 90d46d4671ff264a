import { expect, test } from "vitest";
import { NO_POLICY } from "../../config/policy.ts";
import type { RollbackOnPlan } from "../../config/policy.ts";
import type { Plan } from "../../config/plan-types.ts";
import { readEvents, readReceipts } from "../../store/control/history.ts";
import { readMigration } from "../../store/control/migration.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { readSidecars } from "../../store/control/sidecars.ts";
import { ask, runWorkers, startController, statusOf } from "../support/controller-world.ts";
import {
  ItemsClients,
  itemsOf,
  itemsServicePlan,
  startItemsSidecar,
} from "../support/items-service.ts";

const ON: RollbackOnPlan = {
  errors: 0.2,
  p99Ms: undefined,
  mismatch: undefined,
  lagMs: undefined,
  verify: false,
  samples: 30,
  withinMs: 10_000,
  cooldownMs: 3_600_000,
};
const LONG = { timeout: 90_000 };

async function world(change: Partial<Plan>) {
  const { plan: bare, failing } = await itemsServicePlan(change);
  const plan = { ...bare, policy: { ...NO_POLICY, rollbackOn: ON } };
  const { store, controller } = await startController(plan, { instance: "first" });
  runWorkers(plan);
  const clients = new ItemsClients(await startItemsSidecar(plan), 6);
  return { plan, failing, store, controller, clients };
}

const phaseOf = async (store: ControlStore) => (await readMigration(store)).phase;

const triggers = async (store: ControlStore) =>
  (await readEvents(store)).filter(({ kind }) => kind === "trigger");

test(
  "canary: a new app that fails is left by itself, no client sees it; once, also under another controller",
  { timeout: 240_000 },
  async () => {
    const { plan, failing, store, controller, clients } = await world({
      canary: { steps: [0.9], stayMs: 0, fallback: true, fallbackAfterMs: 5_000 },
    });
    await ask(plan, "advance", { to: "canary", wait: true });
    await clients.progress(60);
    expect(await phaseOf(store), "an app that answers stays").toBe("canary");
    failing.reads = true;
    await expect.poll(() => phaseOf(store), LONG).toBe("shadow");
    expect(await triggers(store)).toMatchObject([
      {
        phase: "canary",
        detail: {
          trigger: "errors",
          limit: "20 %",
          value: expect.stringMatching(/^new failed [\d.]+ % of \d+ requests in 10 s/) as string,
        },
      },
    ]);
    const asked = (await readEvents(store)).findLast(({ kind }) => kind === "phase");
    expect(asked?.by).toMatch(/^controller: errors: new failed/);

    expect(await statusOf(plan)).toMatchObject({
      went_back: { from: "canary", why: expect.stringContaining("errors: new failed") as string },
    });

    const second = await startController(plan, { instance: "second" });
    await controller.stop();
    await expect.poll(() => second.controller.leading, LONG).toBe(true);
    await ask(plan, "advance", { to: "canary", wait: true });
    const failed = async () =>
      (await readSidecars(store)).reduce(
        (sum, { stats }) => sum + (stats.window?.reads.new.errors ?? 0),
        0,
      );
    await expect.poll(failed, LONG).toBeGreaterThan(3 * ON.samples);
    // Two looks of the watchdog.
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect(await phaseOf(store), "after the first it is for a person").toBe("canary");
    expect(await triggers(store)).toHaveLength(1);
    await clients.stop();
    expect([...clients.failed, ...clients.stale]).toEqual([]);
  },
);

test(
  "write-new: it flips back by itself while an approval is pending, and what new took is there",
  { timeout: 240_000 },
  async () => {
    const { plan, failing, store, clients } = await world({ approvals: { done: 1 } });
    await ask(plan, "advance", { to: "write-new", wait: true });
    await clients.progress(40);
    const pending = ask(plan, "advance", { to: "done", wait: true }).catch(
      (error: unknown) => error as Error,
    );
    await clients.progress(40);
    expect(clients.failed).toEqual([]);
    failing.writes = true;
    expect(await pending).toMatchObject({
      message: expect.stringContaining("a rollback was asked for") as string,
    });
    await expect.poll(() => phaseOf(store), LONG).toBe("shadow");
    const failed = clients.failed.length;
    expect(clients.failed.every((said) => said.includes("500 broken"))).toBe(true);
    await clients.progress(60);
    await clients.stop();
    expect(clients.failed.length, "old answers everything again").toBeLessThanOrEqual(failed + 6);
    expect(clients.stale).toEqual([]);
    expect(await readMigration(store)).toMatchObject({ authority: "old", readsNew: 0 });
    expect(await triggers(store)).toMatchObject([
      { phase: "write-new", detail: { trigger: "errors" } },
    ]);
    expect((await readReceipts(store))[0]).toMatchObject({ kind: "rollback", ok: true });
    expect(await ask(plan, "verify")).toMatchObject({ run: { state: "clean" } });
    const rows = await itemsOf(plan, "old");
    for (const [id, value] of clients.acknowledged) expect(rows.get(id), `row ${id}`).toBe(value);
  },
);
