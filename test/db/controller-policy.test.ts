import { createServer } from "node:http";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { NO_POLICY } from "../../config/policy.ts";
import type { PolicyPlan, RollbackOnPlan } from "../../config/policy.ts";
import type { Plan } from "../../config/plan-types.ts";
import { SideWindow } from "../../proxy/side-window.ts";
import { readEvents, readReceipts } from "../../store/control/history.ts";
import { readMigration } from "../../store/control/migration.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { windowKey } from "../../store/control/side-reads.ts";
import { beatSidecar } from "../../store/control/sidecars.ts";
import {
  ask,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";

const TRIGGERS: RollbackOnPlan = {
  errors: 0.05,
  p99Ms: undefined,
  mismatch: undefined,
  lagMs: undefined,
  verify: false,
  samples: 50,
  withinMs: 30_000,
  cooldownMs: 3_600_000,
};

async function world(policy: Partial<PolicyPlan>, change: Partial<Plan> = {}) {
  const plan = { ...(await itemsPlan(change)), policy: { ...NO_POLICY, ...policy } };
  const { store } = await startController(plan, { retryMs: 50 });
  runWorkers(plan);
  return { plan, store };
}

/** A sidecar whose new app fails so many of every hundred reads, for as long as the test runs. */
function failingSidecar(store: ControlStore, failed: number): { failed: number } {
  const fails = { failed };
  const window = new SideWindow();
  let ended = false;
  const beat = async () => {
    const migration = await readMigration(store);
    window.enter(windowKey(migration));
    for (let n = 0; n < 100; n += 1) window.record("new", "read", n < fails.failed, 5);
    await beatSidecar(store, {
      id: "s1",
      epoch: migration.epoch,
      holdAttempt: migration.hold?.attempt,
      inFlightWrites: 0,
      listen: "127.0.0.1:1",
      stats: { window: window.report() },
    });
  };
  const loop = (async () => {
    while (!ended) {
      await beat().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  onTestFinished(async () => {
    ended = true;
    await loop;
  });
  return fails;
}

/** Answers each POST with the next status, then 200, and keeps what came. */
async function receiver(...statuses: number[]) {
  const bodies: Record<string, unknown>[] = [];
  let tries = 0;
  const server = createServer((request: IncomingMessage, response) => {
    tries += 1;
    let text = "";
    request.on("data", (part: Buffer) => (text += part.toString()));
    request.on("end", () => {
      const status = statuses.shift() ?? 200;
      if (status < 300) bodies.push(JSON.parse(text) as Record<string, unknown>);
      response.writeHead(status).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return {
    bodies,
    tries: () => tries,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/services/sesame`,
  };
}

test(
  "an app that fails goes back by itself while an approval is pending, once; then it is for a person",
  { timeout: 240_000 },
  async () => {
    const hooks = await receiver();
    const { plan, store } = await world(
      { rollbackOn: TRIGGERS },
      { approvals: { "write-new": 1 }, notify: [hooks.url] },
    );
    failingSidecar(store, 0);
    await ask(plan, "advance", { to: "read-new", wait: true });
    failingSidecar(store, 50);
    await expect(ask(plan, "advance", { to: "write-new", wait: true })).rejects.toThrow(
      "a rollback was asked for",
    );
    await expect
      .poll(async () => (await readMigration(store)).phase, { timeout: 30_000 })
      .toBe("shadow");
    // The event of a phase follows the phase.
    const lastPhase = async () =>
      (await readEvents(store)).findLast(({ kind }) => kind === "phase")?.by;
    await expect.poll(lastPhase).toContain("controller: errors: new failed");
    const events = await readEvents(store);
    expect(events.findLast(({ kind }) => kind === "trigger")).toMatchObject({
      phase: "read-new",
      detail: {
        trigger: "errors",
        limit: "5 %",
        value: expect.stringMatching(/^new failed [\d.]+ % of \d+ requests in 30 s$/) as string,
      },
    });
    await expect
      .poll(() => hooks.bodies.map(({ text }) => String(text)), { timeout: 20_000 })
      .toContainEqual(expect.stringContaining("going back by itself: errors"));
    // A person goes there again while the app still fails: within the cool-down nothing swings.
    await ask(plan, "advance", { to: "read-new", wait: true });
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect((await readMigration(store)).phase).toBe("read-new");
    expect((await readEvents(store)).filter(({ kind }) => kind === "trigger")).toHaveLength(1);
  },
);

test(
  "hooks get the migration; one that fails or hangs stops an advance, and never a rollback",
  { timeout: 240_000 },
  async () => {
    const seen = join(await mkdtemp(join(tmpdir(), "hook-")), "seen.json");
    const http = await receiver(500);
    const run = (script: string, timeoutMs = 20_000) => ({ run: ["sh", "-c", script], timeoutMs });
    const { plan, store } = await world({
      hooks: {
        "dual-write": {
          before: [{ http: http.url, timeoutMs: 20_000 }],
          after: [run(`cat > ${seen}`)],
        },
        backfill: { before: [run("sleep 60 & sleep 60", 300)], after: [] },
        off: { before: [run("echo no way >&2; exit 7")], after: [] },
      },
    });
    runSidecar(plan, "s1");
    const failed = await ask(plan, "advance").catch((error: unknown) => error as Error);
    expect(failed).toMatchObject({
      code: "REFUSED",
      message: expect.stringMatching(
        /^hooks.dual-write.before\[0\] stopped it: 127.0.0.1:\d+ answered 500$/,
      ) as string,
    });
    expect((await readMigration(store)).phase).toBe("off");
    expect(await ask(plan, "advance")).toMatchObject({ phase: "dual-write" });
    expect(http.bodies).toMatchObject([
      {
        when: "before",
        from: "off",
        to: "dual-write",
        kind: "advance",
        migration: { phase: "off", epoch: 1 },
      },
    ]);
    expect(JSON.parse(await readFile(seen, "utf8"))).toMatchObject({
      when: "after",
      migration: { phase: "dual-write" },
    });
    await expect(ask(plan, "advance")).rejects.toThrow(
      "hooks.backfill.before[0] stopped it: took longer than 300 ms",
    );
    expect(await ask(plan, "rollback", { to: "off" })).toMatchObject({ phase: "off" });
    const recorded = (await readEvents(store))
      .filter(({ kind }) => kind === "hook")
      .map(({ detail }) => detail);
    expect(recorded.at(-1)).toEqual({
      hook: "hooks.off.before[0]",
      ok: false,
      why: "exit code 7: no way",
    });
    expect(JSON.stringify(await readEvents(store))).not.toContain("sesame");
  },
);

test("a webhook that fails is told again, and nothing twice", async () => {
  const { url, bodies } = await receiver(503);
  const { plan, store } = await world({}, { notify: [url] });
  await ask(plan, "advance");
  await expect.poll(() => bodies.length, { timeout: 20_000 }).toBe(1);
  expect(bodies).toMatchObject([
    {
      text: expect.stringMatching(/^Crossfade test: off → dual-write \(by cli:.*\)$/) as string,
      event: { kind: "phase" },
    },
  ]);
  await expect
    .poll(async () => (await readMigration(store)).phase, { timeout: 20_000 })
    .toBe("dual-write");
  await ask(plan, "rollback");
  await expect.poll(() => bodies.length, { timeout: 20_000 }).toBe(2);
  expect(bodies.map(({ event }) => (event as { id: number }).id)).toEqual([
    ...new Set(bodies.map(({ event }) => (event as { id: number }).id)),
  ]);
});

/** A transaction of the app stays open, so that the flip's preparation waits; it ends well. */
async function whilePreparing(
  plan: Plan,
  work: (flip: Promise<unknown>) => Promise<void>,
): Promise<void> {
  await withClient(plan.old.database, async (app) => {
    await app.query("begin; insert into items (name) values ('in the way')");
    const flip = ask(plan, "advance", { to: "write-new", wait: true }).catch(
      (error: unknown) => error,
    );
    const { rows: before } = await app.query("select attempt from crossfade.state");
    await expect
      .poll(async () => (await app.query("select attempt from crossfade.state")).rows, {
        timeout: 20_000,
      })
      .not.toEqual(before);
    await work(flip);
    await app.query("commit");
  });
}

/** Whoever goes back does not wait for the preparation. */
async function goesBackFromPreparation(plan: Plan, store: ControlStore): Promise<void> {
  await whilePreparing(plan, async (flip) => {
    expect(await ask(plan, "rollback", { to: "canary" })).toMatchObject({ phase: "canary" });
    expect(await flip).toMatchObject({ message: "stopped: a rollback was asked for" });
    expect((await readReceipts(store))[0]).toMatchObject({ kind: "flip", ok: false });
  });
}

test(
  "an app that fails while a flip is being prepared: the flip is called off, and the migration goes back by itself",
  { timeout: 240_000 },
  async () => {
    const { plan, store } = await world({ rollbackOn: TRIGGERS });
    const sidecar = failingSidecar(store, 0);
    await ask(plan, "advance", { to: "read-new", wait: true });
    await whilePreparing(plan, async (flip) => {
      sidecar.failed = 50;
      expect(await flip).toMatchObject({ message: "stopped: a rollback was asked for" });
      expect((await readReceipts(store))[0]).toMatchObject({ kind: "flip", ok: false });
      // The app's transaction is open all the while.
      await expect
        .poll(async () => (await readMigration(store)).phase, { timeout: 30_000 })
        .toBe("shadow");
    });
    expect(await readMigration(store)).toMatchObject({ authority: "old", epoch: 1, readsNew: 0 });
    const states = async () =>
      withClient(plan.old.database, async (client) => {
        const sql =
          "select direction, epoch, attempt_ended as ended, (select last_value::int from crossfade.guard_old) as closed from crossfade.state where side = 'old'";
        return (await client.query(sql)).rows;
      });
    expect(await states()).toEqual([{ direction: "forward", epoch: 1, ended: true, closed: 0 }]);
    const events = await readEvents(store);
    expect(events.filter(({ kind }) => kind === "trigger")).toMatchObject([{ phase: "read-new" }]);
    // What the app wrote meanwhile is mirrored as ever.
    const copies = async () =>
      withClient(plan.new.database, async (client) => {
        const { rows } = await client.query("select 1 from items where title = 'in the way'");
        return rows.length;
      });
    await expect.poll(copies, { timeout: 20_000 }).toBe(1);
  },
);

test(
  "a controller that takes over tells what its predecessor had not, and a going back that is refused is told",
  { timeout: 240_000 },
  async () => {
    const hooks = await receiver(503, 503, 503);
    const policy = { ...NO_POLICY, rollbackOn: TRIGGERS };
    const plan = { ...(await itemsPlan({ notify: [hooks.url] })), policy };
    const first = await startController(plan, { instance: "first" });
    runWorkers(plan);
    await ask(plan, "advance");
    await expect.poll(hooks.tries, { timeout: 20_000 }).toBeGreaterThan(0);
    await first.controller.stop();
    expect(hooks.bodies).toEqual([]);

    let quarantined = 0;
    const { store } = await startController(plan, {
      instance: "second",
      retryMs: 50,
      wrap: (engine) => ({
        ...engine,
        countQuarantine: async () => ({ open: quarantined, accepted: 0 }),
      }),
    });
    const texts = () => hooks.bodies.map(({ text }) => String(text));
    await expect
      .poll(texts, { timeout: 20_000 })
      .toEqual([expect.stringContaining("off → dual-write") as string]);
    failingSidecar(store, 0);
    await ask(plan, "advance", { to: "read-new", wait: true });
    await goesBackFromPreparation(plan, store);
    await ask(plan, "advance", { to: "write-new", wait: true });
    quarantined = 3;
    failingSidecar(store, 50);
    await expect
      .poll(texts, { timeout: 30_000 })
      .toContainEqual(
        expect.stringMatching(
          /going back by itself was refused in write-new, somebody has to look: .*quarantine/s,
        ),
      );
    expect((await readMigration(store)).phase).toBe("write-new");
    const ids = hooks.bodies.map(({ event }) => (event as { id: number }).id);
    expect(ids, "in order, nothing twice").toEqual([...new Set(ids)].toSorted((a, b) => a - b));
  },
);

test(
  "a canary step lasts its stay and is judged; then the next one is entered",
  { timeout: 240_000 },
  async () => {
    const stay = (stayMs: number) => ({
      canary: { steps: [0.1, 0.5], stayMs, fallback: true, fallbackAfterMs: 5_000 },
    });
    const plan = await itemsPlan(stay(3_600_000));
    const { controller } = await startController(plan, { instance: "first" });
    runWorkers(plan);
    runSidecar(plan, "s1");
    await ask(plan, "advance", { to: "canary", wait: true });
    const refused = await ask(plan, "advance").catch((error: unknown) => error as Error);
    expect(refused).toMatchObject({
      code: "REFUSED",
      message: expect.stringContaining("stay: fail") as string,
    });
    const planned = (await ask(plan, "advance", { to: "read-new", dryRun: true })) as {
      steps: { gates: { name: string; state: string }[] }[];
    };
    expect(planned.steps).toHaveLength(2);
    for (const { gates } of planned.steps) expect(gates.map(({ name }) => name)).toContain("stay");

    await controller.stop();
    const edited = { ...plan, ...stay(1_000) };
    const { store } = await startController(edited, { instance: "second" });
    expect(await ask(edited, "advance", { to: "read-new", wait: true })).toMatchObject({
      steps: [{ canary_step: 2 }, { to: "read-new" }],
    });
    const times = (await readEvents(store))
      .filter(({ kind }) => kind === "phase")
      .slice(-3)
      .map(({ at }) => at.getTime());
    expect(times[1]! - times[0]!).toBeGreaterThanOrEqual(900);
    expect(times[2]! - times[1]!, "each step has a stay of its own").toBeGreaterThanOrEqual(900);
  },
);
