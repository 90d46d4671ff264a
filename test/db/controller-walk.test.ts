import { expect, test } from "vitest";
import { clearChunks, replaceChunks } from "../../store/control/chunk-ledger.ts";
import { readEvents, readReceipts } from "../../store/control/history.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import {
  ask,
  installedObjects,
  itemsPlan,
  itemsPlanInOneDatabase,
  runSidecar,
  runWorkers,
  startController,
  statusOf,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";
import type { Plan } from "../../config/plan-types.ts";

async function sameRows(plan: Plan): Promise<void> {
  const rows = async (url: string, column: string) =>
    (
      await withClient(url, (client) =>
        client.query(`select id, ${column} as name, note from items order by id`),
      )
    ).rows;
  expect(await rows(plan.new.database, "title")).toEqual(await rows(plan.old.database, "name"));
}

test(
  "off to write-new, back, forward again to done, with writes on the way",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const { store } = await startController(plan);
    runWorkers(plan);
    runSidecar(plan, "s1");
    expect(await statusOf(plan)).toMatchObject({
      phase: "off",
      authority: "old",
      problems: [],
    });

    const up = (await ask(plan, "advance", { to: "read-new", wait: true })) as {
      steps: { to: string; canary_step?: number }[];
    };
    expect(up.steps.map((step) => step.to)).toEqual([
      "dual-write",
      "backfill",
      "verify",
      "shadow",
      "canary",
      "canary",
      "read-new",
    ]);
    await sameRows(plan);
    expect(await statusOf(plan)).toMatchObject({
      phase: "read-new",
      authority: "old",
      reads: { new: 1 },
      backfill: { state: "done", tables: [{ table: "items", rows: 120, eta_s: 0 }] },
      verify: { state: "clean", missing: 0, extra: 0, different: 0 },
      quarantine: 0,
      sidecars: [{ id: "s1" }],
    });

    const drilled = (await ask(plan, "drill", { wait: true })) as { receipt: { ok: boolean } };
    expect(drilled.receipt).toMatchObject({ kind: "drill", ok: true, from: "old", to: "new" });
    expect(await readMigration(store)).toMatchObject({
      phase: "read-new",
      authority: "old",
      hold: undefined,
    });

    const forward = (await ask(plan, "advance", { wait: true })) as { receipt: object };
    expect(forward).toMatchObject({
      phase: "write-new",
      receipt: { kind: "flip", ok: true, from: "old", to: "new" },
    });
    await withClient(plan.new.database, (client) =>
      client.query(
        "insert into items (title, note) values ('written on new', 'x'); update items set title = 'changed' where id = 1; delete from items where id = 2",
      ),
    );
    await expect(
      withClient(plan.old.database, (client) =>
        client.query("update items set name = 'stray' where id = 3"),
      ),
    ).rejects.toMatchObject({ code: "CF001" });

    // After a gap of the way back, status tells of what is copied back.
    expect(await statusOf(plan)).toMatchObject({ backfill: { state: "done" } });
    await ask(plan, "pause", { what: "all" });
    const { phase, epoch } = await readMigration(store);
    await setMigration(store, { phase, epoch }, { gap: "old went back in time" });
    await replaceChunks(store, "reverse", "items", [
      { n: 1, lo: undefined, hi: undefined, estRows: 1, planVersion: 0 },
    ]);
    expect(await statusOf(plan)).toMatchObject({
      backfill: { state: "paused", tables: [{ table: "items", chunks: 1, done: 0 }] },
    });
    await clearChunks(store, "reverse");
    await setMigration(store, { phase, epoch }, { gap: null });
    await ask(plan, "resume", { what: "all" });

    const back = await ask(plan, "rollback", { to: "shadow", wait: true });
    expect(back).toMatchObject({ phase: "shadow", receipt: { kind: "rollback", ok: true } });
    expect(await readMigration(store)).toMatchObject({
      phase: "shadow",
      authority: "old",
      readsNew: 0,
    });
    await sameRows(plan);
    const { rows } = await withClient(plan.old.database, (client) =>
      client.query(
        "select name from items where id in (1, 2) or name = 'written on new' order by id",
      ),
    );
    expect(rows).toEqual([{ name: "changed" }, { name: "written on new" }]);

    expect(await ask(plan, "advance", { to: "done", wait: true })).toMatchObject({ phase: "done" });
    const [old, next] = [
      await installedObjects(plan.old.database),
      await installedObjects(plan.new.database),
    ];
    expect(old.tables).toEqual(["crossfade_old.items"]);
    expect(old.triggers).toEqual(["crossfade_guard"]);
    expect(next).toEqual({ ours: [], triggers: [], tables: ["public.items"] });
    await expect(
      withClient(plan.old.database, (client) => client.query("delete from crossfade_old.items")),
    ).rejects.toMatchObject({ code: "CF001" });
    await withClient(plan.new.database, (client) => client.query("delete from items where id = 3"));

    expect((await readReceipts(store)).map((each) => each.kind)).toEqual([
      "flip",
      "rollback",
      "flip",
      "drill",
    ]);
    const phases = (await readEvents(store))
      .filter((event) => event.kind === "phase")
      .map((event) => event.detail["to"]);
    expect(phases.at(-1)).toBe("done");
    expect(await statusOf(plan)).toMatchObject({ phase: "done", authority: "new", gates: [] });
    await expect(ask(plan, "rollback")).rejects.toMatchObject({ code: "REFUSED" });

    await ask(plan, "clean");
    expect((await installedObjects(plan.old.database)).triggers).toEqual([]);
  },
);

test(
  "rollback to off leaves nothing on either side but the control store, and it can begin again",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const { store } = await startController(plan);
    runWorkers(plan);
    await ask(plan, "advance", { to: "verify", wait: true });
    expect(await ask(plan, "rollback", { to: "off" })).toMatchObject({ phase: "off" });
    for (const side of ["old", "new"] as const) {
      expect(await installedObjects(plan[side].database)).toMatchObject({
        ours: [],
        triggers: [],
        tables: ["public.items"],
      });
    }
    expect(await readMigration(store)).toMatchObject({ phase: "off", authority: "old" });
    expect(await ask(plan, "advance")).toMatchObject({ phase: "dual-write" });
  },
);

test("a plan that does not hold leaves nothing behind, also not a control store", async () => {
  const plan = await itemsPlan();
  const broken: Plan = { ...plan, new: { ...plan.new, schema: "nowhere" } };
  await expect(ask(broken, "advance")).rejects.toMatchObject({ exitCode: 2 });
  const found = await withClient(plan.old.database, (client) =>
    client.query("select 1 from pg_namespace where nspname = 'crossfade'"),
  );
  expect(found.rowCount).toBe(0);
  await expect(ask(plan, "rollback")).rejects.toMatchObject({ code: "REFUSED" });
});

test("an unknown gate refuses and names itself; status says why a database is away", async () => {
  const plan = await itemsPlan();
  await ask(plan, "advance");
  await expect(ask(plan, "advance")).rejects.toMatchObject({
    code: "REFUSED",
    exitCode: 3,
    message: expect.stringContaining("lag: unknown") as string,
    gates: expect.arrayContaining([
      expect.objectContaining({ name: "lag", state: "unknown" }),
    ]) as unknown,
  });
  const away: Plan = {
    ...plan,
    new: { ...plan.new, database: "postgres://postgres:sesame@127.0.0.1:1/none" },
  };
  const seen = await statusOf(away);
  expect(seen).toMatchObject({
    phase: "dual-write",
    // They are kept on new: that none is there is more than anybody knows now.
    quarantine: null,
    databases: { old: { reachable: true }, new: { reachable: false } },
  });
  expect(JSON.stringify(seen)).not.toContain("sesame");
  const storeAway: Plan = {
    ...plan,
    control: { database: "postgres://postgres:sesame@127.0.0.1:1/none", schema: "crossfade" },
  };
  expect(await statusOf(storeAway)).toMatchObject({
    phase: "unknown",
    quarantine: null,
    authority: "old",
    epoch: 1,
    problems: [expect.stringContaining("control database")],
  });
});

test(
  "two schemas of one database: there, back to off, and there again to done",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlanInOneDatabase();
    await startController(plan);
    runWorkers(plan);
    runSidecar(plan, "s1");
    const url = plan.old.database;
    await ask(plan, "advance", { to: "write-new", wait: true });
    await withClient(url, (client) =>
      client.query("update new_app.items set title = 'changed' where id = 1"),
    );
    expect(await ask(plan, "rollback", { to: "off", wait: true })).toMatchObject({ phase: "off" });
    expect(await installedObjects(url)).toEqual({
      ours: [],
      triggers: [],
      tables: ["new_app.items", "old_app.items"],
    });
    const { rows } = await withClient(url, (client) =>
      client.query("select name from old_app.items where id = 1"),
    );
    expect(rows).toEqual([{ name: "changed" }]);
    expect(await ask(plan, "advance", { to: "done", wait: true })).toMatchObject({
      phase: "done",
      // Two flips, a new installation, and a third flip.
      epoch: 5,
    });
    expect(await installedObjects(url)).toMatchObject({
      triggers: ["crossfade_guard"],
      tables: ["crossfade_old.items", "new_app.items"],
    });
    await expect(ask(plan, "clean", { dropOld: true }), "its stay is not over").rejects.toThrow(
      "the old tables stay until",
    );
    await ask(plan, "clean");
    expect(await installedObjects(url)).toMatchObject({ ours: [], triggers: [] });
  },
);
