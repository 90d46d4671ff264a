import { expect, onTestFinished, test } from "vitest";
import { CrossfadeError } from "../../config/errors.ts";
import type { Plan } from "../../config/plan-types.ts";
import { runMirrorRole } from "../../proxy/mirror/role.ts";
import { enqueueCommand, readCommand, readCommands } from "../../store/control/commands.ts";
import { readEvents } from "../../store/control/history.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import { closeControlStore, openControlStore } from "../../store/control/open.ts";
import type { ControlStore } from "../../store/control/open.ts";
import type { Engine } from "../../switchover/engine.ts";
import { someoneLeads } from "../../switchover/lead.ts";
import { silentLog } from "../support/control.ts";
import {
  ask,
  installedObjects,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";

/** Ends the session that is the lead, as a server or a network may. */
async function killLead(plan: Plan, instance: string): Promise<void> {
  await withClient(plan.control.database, (client) =>
    client.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
      [`crossfade lead ${instance} ${plan.name}`],
    ),
  );
}

async function outcome(store: ControlStore, id: number) {
  await expect
    .poll(async () => (await readCommand(store, id))?.state, { timeout: 20_000 })
    .toMatch(/done|failed/);
  return (await readCommand(store, id))!;
}

/** Resolves once the controller executes the command. */
async function running(store: ControlStore, id: number): Promise<void> {
  await expect
    .poll(async () => (await readCommand(store, id))?.state, { timeout: 20_000 })
    .toBe("running");
}

test("one controller leads; when its session ends another takes over and fails what was left running", async () => {
  const plan = await itemsPlan();
  const first = await startController(plan, { instance: "first" });
  await expect.poll(() => first.controller.leading).toBe(true);
  const second = await startController(plan, { instance: "second" });
  expect(await someoneLeads(second.store)).toBe(true);
  expect(second.controller.leading).toBe(false);
  await ask(plan, "advance");
  const waiting = await enqueueCommand(first.store, {
    kind: "advance",
    args: { to: "verify", wait: true },
    by: "anna",
  });
  await running(first.store, waiting);
  await killLead(plan, "first");
  expect(await outcome(first.store, waiting)).toMatchObject({ state: "failed" });
  const leading = () => [first, second].filter(({ controller }) => controller.leading);
  await expect.poll(leading).toHaveLength(1);
  expect(await readMigration(second.store)).toMatchObject({ phase: "dual-write" });
});

test(
  "a controller that is stopped while a flip waits for its mirror does not wait with it",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const abort = new AbortController();
    const mirror = runMirrorRole({ plan, log: silentLog, signal: abort.signal });
    const preparing = Promise.withResolvers<void>();
    const { controller, store } = await startController(plan, {
      wrap: (engine) => ({
        ...engine,
        async flip(request) {
          abort.abort();
          await mirror;
          preparing.resolve();
          return engine.flip(request);
        },
      }),
    });
    runSidecar(plan, "s1");
    await ask(plan, "advance");
    const drilled = ask(plan, "drill", { wait: true }).catch((error: unknown) => error);
    await preparing.promise;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    // A minute is what it would wait for the mirror.
    const late = new Promise((resolve) => setTimeout(resolve, 30_000, "late"));
    expect(await Promise.race([controller.stop(), late])).toBeUndefined();
    expect(await drilled).toBeInstanceOf(Error);
    expect(await readMigration(store)).toMatchObject({ phase: "dual-write", hold: undefined });
  },
);

test("half an install is no install: the phase stays off and nothing is left", async () => {
  const plan = await itemsPlan();
  const wrap = (engine: Engine): Engine => ({
    ...engine,
    async install(lead) {
      await engine.install(lead);
      throw new CrossfadeError("TIMEOUT", "a table could not be locked");
    },
  });
  const { store } = await startController(plan, { wrap });
  await expect(ask(plan, "advance")).rejects.toMatchObject({ code: "TIMEOUT" });
  expect((await readMigration(store)).phase).toBe("off");
  for (const side of ["old", "new"] as const)
    expect(await installedObjects(plan[side].database)).toMatchObject({ ours: [], triggers: [] });
});

test("a rollback stops what waits; short commands do not wait for it", async () => {
  const plan = await itemsPlan();
  const { store } = await startController(plan);
  await ask(plan, "advance");
  // No mirror runs, so this waits for ever.
  const waiting = await enqueueCommand(store, {
    kind: "advance",
    args: { to: "verify", wait: true },
    by: "anna",
  });
  await running(store, waiting);
  expect(await ask(plan, "pause", { what: "backfill" })).toMatchObject({
    paused: { backfill: true, mirror: false },
  });
  expect(await ask(plan, "tune", { key: "workers", value: 1 })).toMatchObject({
    throttle: { workers: 1 },
  });
  expect(await ask(plan, "tune", { key: "workers", value: null })).toMatchObject({ throttle: {} });
  expect(await ask(plan, "resume")).toMatchObject({ paused: { backfill: false, mirror: false } });
  expect((await readCommand(store, waiting))?.state).toBe("running");
  expect(await ask(plan, "rollback", { to: "off" })).toMatchObject({ phase: "off" });
  expect(await outcome(store, waiting)).toMatchObject({
    state: "failed",
    error: { message: expect.stringContaining("rollback") as string },
  });
});

test("a controller that ends with its command takes no other along, and makes way for a rollback", async () => {
  const plan = await itemsPlan();
  const from = { phase: "off", canary_step: 0, epoch: 1 };
  // No controller but those of the commands themselves. The last would wait for ever: no mirror runs.
  const [first, second] = [ask(plan, "advance", { from }), ask(plan, "advance", { from })];
  const outcomes = await Promise.allSettled([first, second]);
  expect(outcomes.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
  expect(outcomes.find(({ status }) => status === "rejected")).toMatchObject({
    reason: { code: "REFUSED", message: expect.stringContaining("decided in off") as string },
  });
  const waiting = ask(plan, "advance", { to: "verify", wait: true }).catch((e: unknown) => e);
  const store = openControlStore(plan, { role: "cli", instance: "test" });
  onTestFinished(() => closeControlStore(store));
  await expect
    .poll(async () => (await readCommands(store, 1))[0]?.state, { timeout: 20_000 })
    .toBe("running");
  expect(await ask(plan, "rollback", { to: "off" })).toMatchObject({ phase: "off" });
  expect(await waiting).toMatchObject({ message: expect.stringContaining("rollback") as string });
});

test("what a predecessor left half removed is removed by the next leader", async () => {
  const plan = await itemsPlan();
  const dying = (engine: Engine): Engine => ({
    ...engine,
    uninstall: () => Promise.reject(new CrossfadeError("FAILED", "the process died here")),
  });
  const first = await startController(plan, { instance: "first", wrap: dying });
  await ask(plan, "advance");
  await expect(ask(plan, "rollback")).rejects.toMatchObject({ code: "FAILED" });
  expect((await readMigration(first.store)).phase).toBe("off");
  expect((await installedObjects(plan.new.database)).triggers).toContain("crossfade_guard");
  await first.controller.stop();
  await startController(plan, { instance: "second" });
  await expect
    .poll(() => installedObjects(plan.new.database))
    .toMatchObject({ ours: [], triggers: [] });
});

test("a control store that was lost never takes down what is installed, nor installs over it", async () => {
  const plan = await itemsPlan();
  const { controller } = await startController(plan, { instance: "first" });
  await ask(plan, "advance");
  await controller.stop();
  const lost: Plan = { ...plan, control: { ...plan.control, schema: "another" } };
  await withClient(plan.new.database, (client) =>
    client.query("update crossfade.state set epoch = 3, attempt = 2"),
  );
  const { store, controller: second } = await startController(lost, { instance: "second" });
  await expect.poll(() => second.leading).toBe(true);
  await expect(ask(lost, "advance")).rejects.toMatchObject({
    code: "REFUSED",
    message: expect.stringContaining("epoch 3") as string,
  });
  expect((await readMigration(store)).phase).toBe("off");
});

test("approvals: distinct people, used up by entering the phase", async () => {
  const plan = await itemsPlan({ approvals: { "dual-write": 2 } });
  const { store } = await startController(plan);
  await expect(ask(plan, "advance")).rejects.toMatchObject({
    code: "REFUSED",
    message: expect.stringContaining("approvals") as string,
  });
  await ask(plan, "approve", { phase: "dual-write", as: "anna" });
  expect(await ask(plan, "approve", { phase: "dual-write", as: "anna" })).toMatchObject({
    added: false,
  });
  await expect(ask(plan, "advance")).rejects.toMatchObject({ code: "REFUSED" });
  await ask(plan, "approve", { phase: "dual-write", as: "ben", reason: "looks right" });
  expect(await ask(plan, "advance")).toMatchObject({ phase: "dual-write" });
  await ask(plan, "rollback");
  await expect(ask(plan, "advance")).rejects.toMatchObject({ code: "REFUSED" });
  const names = (await readEvents(store))
    .filter((event) => event.kind === "approve")
    .map((event) => event.by);
  expect(names).toEqual(["anna", "ben"]);
});

test("a dry run says what would happen and changes nothing", async () => {
  const plan = await itemsPlan();
  const { store } = await startController(plan);
  const planned = (await ask(plan, "advance", { to: "backfill", dryRun: true })) as {
    steps: object[];
  };
  expect(planned.steps).toMatchObject([
    {
      from: "off",
      to: "dual-write",
      gates: [],
      effects: [{ do: "check" }, { do: "install" }, { do: "set" }],
    },
    {
      from: "dual-write",
      to: "backfill",
      gates: [
        { name: "gap", state: "pass" },
        { name: "lag", state: "unknown" },
      ],
    },
  ]);
  expect(await readMigration(store)).toMatchObject({ phase: "off", version: 1 });
});

test(
  "a flip that was interrupted around its decision is recovered by the same controller",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const wrap = (engine: Engine): Engine => ({
      ...engine,
      async flip(request) {
        await engine.flip(request);
        throw new CrossfadeError("FLIP_UNKNOWN", "told to stop after the decision");
      },
    });
    const { store } = await startController(plan, { wrap });
    runWorkers(plan);
    runSidecar(plan, "s1");
    expect(await ask(plan, "advance", { to: "write-new", wait: true })).toMatchObject({
      phase: "write-new",
      epoch: 2,
    });
    expect((await readEvents(store)).map((event) => event.kind)).toContain("recovery");
  },
);

test(
  "after a gap everything is copied and compared again, then it is closed",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const { store } = await startController(plan);
    runWorkers(plan);
    await ask(plan, "advance", { to: "shadow", wait: true });
    // What a restore of new would have done: rows are gone, and the mirror says that it went back in time.
    await withClient(plan.new.database, async (client) => {
      await client.query(
        "begin; set local crossfade.mirror = 'forward:1'; delete from items where id <= 5; commit",
      );
    });
    const { phase, epoch } = await readMigration(store);
    await setMigration(store, { phase, epoch }, { gap: "new went back in time" });
    await expect
      .poll(async () => (await readMigration(store)).gap, { timeout: 30_000 })
      .toBeUndefined();
    const { rows } = await withClient(plan.new.database, (client) =>
      client.query("select count(*)::int as n from items"),
    );
    expect(rows).toEqual([{ n: 120 }]);
    const kinds = async () => (await readEvents(store)).map((event) => event.kind);
    expect(await kinds()).toContain("gap-healed");
    // What a database that was away when a flip was undone still says when it is back.
    await withClient(plan.old.database, (client) =>
      client.query(`update crossfade.state set attempt = attempt + 1, attempt_kind = 'flip', attempt_from = 'old',
        attempt_to = 'new', attempt_epoch = epoch + 1, attempt_ended = false`),
    );
    await expect.poll(kinds, { timeout: 30_000 }).toContain("recovery");
  },
);

test(
  "in verify the controller compares by itself, and a difference it repaired is told",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const { store } = await startController(plan);
    runWorkers(plan);
    await ask(plan, "advance", { to: "backfill", wait: true });
    await expect
      .poll(async () => ((await ask(plan, "verify")) as { run: { state: string } }).run.state, {
        timeout: 20_000,
      })
      .toBe("clean");
    await withClient(plan.new.database, (client) =>
      client.query(
        "begin; set local crossfade.mirror = 'forward:1'; update items set title = 'wrong' where id = 7; commit",
      ),
    );
    expect(await ask(plan, "verify")).toMatchObject({
      run: { state: "dirty", different: 1 },
      examples: [{ kind: "different", key: { id: "7" } }],
    });
    await ask(plan, "advance", { to: "verify", wait: true });
    const { rows } = await withClient(plan.new.database, (client) =>
      client.query("select title from items where id = 7"),
    );
    expect(rows).toEqual([{ title: "name 7" }]);
    expect(await readMigration(store)).toMatchObject({ phase: "verify" });
  },
);
