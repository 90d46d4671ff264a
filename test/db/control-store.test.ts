import pg from "pg";
import { beforeAll, describe, expect, test } from "vitest";
import {
  claimCommand,
  enqueueCommand,
  failOrphanedCommands,
  finishCommand,
  waitForCommand,
} from "../../store/control/commands.ts";
import {
  addApproval,
  addEvent,
  addReceipt,
  readApprovals,
  readEvents,
  readReceipts,
  useApprovals,
} from "../../store/control/history.ts";
import { notifyPassed } from "../../store/control/listen.ts";
import type { ControlMessage } from "../../store/control/listen.ts";
import {
  changeMigration,
  holdWrites,
  readMigration,
  releaseWrites,
  setMigration,
} from "../../store/control/migration.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { install, isInstalled, uninstall } from "../../store/control/schema.ts";
import {
  beatSidecar,
  forgetSidecars,
  readSidecars,
  removeSidecar,
} from "../../store/control/sidecars.ts";
import { watchState } from "../../store/control/watch.ts";
import { closeSession, openSession } from "../../store/postgres/session.ts";
import { beatWorker, readWorkers } from "../../store/control/workers.ts";
import { freshStore, openTestListener, openTestStore, silentLog } from "../support/control.ts";
import { createSingleDatabase, withClient } from "../support/databases.ts";

let database: string;

beforeAll(async () => {
  database = await createSingleDatabase();
});

const OFF = { phase: "off", epoch: 1 } as const;

describe("install", () => {
  test("concurrent and repeated installs make one store; uninstall leaves nothing", async () => {
    const stores = Array.from({ length: 5 }, () => openTestStore(database, { schema: "racing" }));
    await Promise.all(stores.map(install));
    const [store] = stores as [ControlStore];
    expect(await isInstalled(store)).toBe(true);
    const salts = await Promise.all(stores.map(async (each) => (await readMigration(each)).salt));
    expect(new Set(salts).size).toBe(1);
    await install(store);
    expect((await readMigration(store)).salt).toBe(salts[0]);
    await uninstall(store);
    await uninstall(store);
    const left = await withClient(database, (client) =>
      client.query("select 1 from pg_namespace where nspname = 'racing'"),
    );
    expect(left.rowCount).toBe(0);
  });

  test("uninstall leaves what is not ours in the schema", async () => {
    const store = await freshStore(database);
    await withClient(database, (client) =>
      client.query(`create table ${pg.escapeIdentifier(store.schema)}.theirs (id int)`),
    );
    await uninstall(store);
    const { rows } = await withClient(database, (client) =>
      client.query(
        "select relname from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = $1",
        [store.schema],
      ),
    );
    expect(rows).toEqual([{ relname: "theirs" }]);
  });

  test("a schema belongs to one plan", async () => {
    const store = await freshStore(database);
    const other = openTestStore(database, { plan: "another", schema: store.schema });
    await expect(install(other)).rejects.toMatchObject({ code: "DATABASE_UNFIT" });
  });

  test("what it is told outlives a crash, whatever its database is set to", async () => {
    const careless = await createSingleDatabase();
    const elsewhere = new URL("/postgres", careless).href;
    await withClient(elsewhere, (client) =>
      client.query(
        `alter database ${new URL(careless).pathname.slice(1)} set synchronous_commit = off`,
      ),
    );
    const { rows } = await openTestStore(careless).pool.query("show synchronous_commit");
    expect(rows).toEqual([{ synchronous_commit: "local" }]);
    const session = await openSession({ url: careless, name: "test", application: "test" });
    const shown = await session.query("show synchronous_commit");
    await closeSession(session);
    expect(shown.rows).toEqual(rows);
  });

  test("says what is wrong: not installed, unreachable", async () => {
    await expect(
      readMigration(openTestStore(database, { schema: "nowhere" })),
    ).rejects.toMatchObject({ code: "DATABASE_UNFIT" });
    const away = openTestStore("postgres://postgres:sesame@127.0.0.1:1/none");
    await expect(install(away)).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    const error = await readMigration(away).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: "DATABASE_UNREACHABLE" });
    expect((error as Error).message).not.toContain("sesame");
  });
});

describe("migration", () => {
  test("starts off with old as authority", async () => {
    expect(await readMigration(await freshStore(database))).toMatchObject({
      ...OFF,
      authority: "old",
      readsNew: 0,
      canaryStep: 0,
      hold: undefined,
      gap: undefined,
      paused: { backfill: false, mirror: false },
    });
  });

  test("of concurrent changes from one state exactly one happens", async () => {
    const store = await freshStore(database);
    const changes = await Promise.all(
      Array.from({ length: 12 }, () => changeMigration(store, OFF, { phase: "dual-write" })),
    );
    expect(changes.filter((change) => change !== undefined)).toHaveLength(1);
    expect(await readMigration(store)).toMatchObject({ phase: "dual-write", version: 2 });
    await expect(setMigration(store, OFF, { phase: "backfill" })).rejects.toMatchObject({
      code: "STALE",
    });
  });

  test("changes only what it names; phase_since moves with the phase alone", async () => {
    const store = await freshStore(database);
    const before = await readMigration(store);
    const gap = await setMigration(store, OFF, {
      gap: "new was restored",
      paused: { mirror: true },
      throttle: { workers: 1 },
    });
    expect(gap).toMatchObject({
      gap: "new was restored",
      paused: { backfill: false, mirror: true },
      throttle: { workers: 1 },
    });
    expect(gap.phaseSince).toEqual(before.phaseSince);
    const healed = await setMigration(
      store,
      { ...OFF, version: gap.version },
      { gap: null, phase: "dual-write", readsNew: 0.25 },
    );
    expect(healed).toMatchObject({ gap: undefined, readsNew: 0.25, paused: { mirror: true } });
    expect(healed.phaseSince.getTime()).toBeGreaterThan(before.phaseSince.getTime());
  });

  test("a hold is a lease that counts down on the reader's clock", async () => {
    const store = await freshStore(database);
    expect((await holdWrites(store, { attempt: 7, ms: 5_000 }))?.hold?.attempt).toBe(7);
    const left = ((await readMigration(store)).hold?.deadline ?? 0) - performance.now();
    expect(left).toBeLessThanOrEqual(5_000);
    expect(left).toBeGreaterThan(0);
  });

  test("attempts only grow: a lower one neither holds nor releases", async () => {
    const store = await freshStore(database);
    await holdWrites(store, { attempt: 3, ms: 5_000 });
    expect(await holdWrites(store, { attempt: 2, ms: 5_000 })).toBeUndefined();
    await releaseWrites(store, 2);
    expect((await readMigration(store)).hold?.attempt).toBe(3);
    await releaseWrites(store, 4);
    expect((await readMigration(store)).hold).toBeUndefined();
    expect(await holdWrites(store, { attempt: 3, ms: 5_000 })).toBeUndefined();
  });
});

describe("notifications", () => {
  test("the watcher sees a change, and again after its connections were killed", async () => {
    const store = await freshStore(database);
    const watcher = watchState(store, await openTestListener(store), silentLog);
    expect((await watcher.until(() => true)).phase).toBe("off");
    await setMigration(store, OFF, { phase: "dual-write" });
    await watcher.until((row) => row.phase === "dual-write");
    expect(watcher.connected).toBe(true);
    await withClient(database, (client) =>
      client.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like $1",
        [`crossfade test% ${store.instance} %`],
      ),
    );
    await setMigration(
      openTestStore(database, { schema: store.schema }),
      { phase: "dual-write", epoch: 1 },
      { phase: "backfill" },
    );
    await watcher.until((row) => row.phase === "backfill");
    await watcher.stop();
  });

  test("asked for the row, the watcher has read it since; also when it changed without a word", async () => {
    const store = await freshStore(database);
    const watcher = watchState(store, await openTestListener(store), silentLog);
    await watcher.until(() => true);
    const looked: string[] = [];
    for (const phase of ["dual-write", "backfill", "verify", "shadow"]) {
      await withClient(database, (client) =>
        client.query(`update ${store.table("migration")} set phase = $1, version = version + 1`, [
          phase,
        ]),
      );
      await Promise.all([watcher.look(), watcher.look()]);
      looked.push(watcher.current?.phase ?? "nothing");
    }
    expect(looked).toEqual(["dual-write", "backfill", "verify", "shadow"]);
    const asked = watcher.look();
    await watcher.stop();
    await asked;
    await watcher.look();
  });

  test("the listener itself comes back after its connection was killed", async () => {
    const store = await freshStore(database);
    const listener = await openTestListener(store, "sidecars");
    const back = new Promise<void>((resolve) => listener.onConnected(resolve));
    await withClient(database, (client) =>
      client.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like $1",
        [`crossfade listen test ${store.instance}%`],
      ),
    );
    await back;
    const next = listener.next((message) => message.t === "passed", 10_000);
    await notifyPassed(store, 3, 12345678901234567890n);
    expect(await next).toEqual({ t: "passed", epoch: 3, fence: "12345678901234567890" });
  });

  test("a sidecar's heartbeat wakes the controller only when it acknowledges something, sidecars when its epoch or promises change, and nobody else", async () => {
    const store = await freshStore(database);
    const audiences = { controller: ["controller"], sidecars: ["sidecars"], others: [] } as const;
    const heard: Record<keyof typeof audiences, ControlMessage[]> = {
      controller: [],
      sidecars: [],
      others: [],
    };
    for (const name of Object.keys(audiences) as (keyof typeof audiences)[]) {
      const listener = await openTestListener(store, ...audiences[name]);
      listener.on((message) => heard[name].push(message));
    }
    const beat = {
      id: "s1",
      epoch: 1,
      holdAttempt: undefined,
      inFlightWrites: 3,
      listen: "127.0.0.1:1",
      stats: { held: { attempt: 4, writes: 5, failed: 0, durations_ms: [], max_ms: 0 } },
    };
    await beatSidecar(store, beat);
    await beatSidecar(store, beat);
    await beatSidecar(store, { ...beat, inFlightWrites: 2 });
    await beatSidecar(store, { ...beat, inFlightWrites: 2, holdAttempt: 4 });
    await beatSidecar(store, { ...beat, inFlightWrites: 0, holdAttempt: 4 });
    await beatSidecar(store, { ...beat, inFlightWrites: 0, holdAttempt: 4, isNews: true });
    await notifyPassed(store, 1, "1");
    await releaseWrites(store, 4);
    for (const messages of Object.values(heard))
      await expect.poll(() => messages.at(-1)).toMatchObject({ t: "state" });
    const kinds = (messages: readonly ControlMessage[]) => messages.map(({ t }) => t);
    expect(kinds(heard.controller)).toEqual([...Array<string>(4).fill("sidecar"), "state"]);
    expect(kinds(heard.sidecars)).toEqual(["sidecar", "sidecar", "passed", "state"]);
    expect(kinds(heard.others)).toEqual(["state"]);
    expect(await readSidecars(store)).toMatchObject([
      { id: "s1", epoch: 1, holdAttempt: 4, inFlightWrites: 0, stats: { held: { writes: 5 } } },
    ]);
    expect(await forgetSidecars(store, 60_000)).toEqual([]);
    await removeSidecar(store, "s1");
    expect(await readSidecars(store)).toEqual([]);
  });
});

describe("commands", () => {
  test("each is claimed once, in order, and waiting ends with its outcome", async () => {
    const store = await freshStore(database);
    const listener = await openTestListener(store);
    const ids: number[] = [];
    for (let n = 0; n < 6; n += 1)
      ids.push(await enqueueCommand(store, { kind: "advance", args: { n }, by: "anna" }));
    const claimed = await Promise.all(
      Array.from({ length: 10 }, () => claimCommand(store, ["advance"])),
    );
    expect(claimed.flatMap((command) => command?.id ?? []).toSorted((a, b) => a - b)).toEqual(ids);
    const [first, second, third] = ids as [number, number, number];
    const waiting = waitForCommand(store, listener, first);
    expect(await finishCommand(store, first, { result: { phase: "dual-write" } })).toBe(true);
    expect(await waiting).toMatchObject({
      state: "done",
      result: { phase: "dual-write" },
      args: { n: 0 },
      by: "anna",
    });
    await finishCommand(store, second, { error: { code: "REFUSED", message: "no" } });
    expect(await waitForCommand(store, listener, second)).toMatchObject({
      state: "failed",
      error: { code: "REFUSED" },
    });
    expect(await failOrphanedCommands(store, { code: "FAILED", message: "ended" })).toEqual(
      ids.slice(2),
    );
    expect(await finishCommand(store, third, { result: 1 })).toBe(false);
  });
});

describe("history", () => {
  test("events, receipts and approvals", async () => {
    const store = await freshStore(database);
    await addEvent(store, { kind: "advance", by: "anna", detail: { to: "dual-write" } });
    expect(await readEvents(store)).toMatchObject([
      { kind: "advance", by: "anna", ...OFF, detail: { to: "dual-write" } },
    ]);
    const receipt = {
      from: "old",
      to: "new",
      epoch: 2,
      writes_held: 3,
      hold_ms: { max: 9, p50: 3, p99: 9 },
      failed: 0,
      steps: [],
      why: null,
    } as const;
    await addReceipt(store, { kind: "drill", ok: true, ...receipt });
    await addReceipt(store, { kind: "flip", ok: false, ...receipt, why: "blocked" });
    expect((await readReceipts(store)).map((each) => each.kind)).toEqual(["flip", "drill"]);
    expect(await addApproval(store, { phase: "done", name: "anna" })).toBe(true);
    expect(await addApproval(store, { phase: "done", name: "anna" })).toBe(false);
    await useApprovals(store, "done");
    expect(await readApprovals(store)).toEqual([]);
    expect(await addApproval(store, { phase: "done", name: "anna", reason: "again" })).toBe(true);
  });

  test("a worker's stats come back as they were", async () => {
    const store = await freshStore(database);
    const stats = {
      direction: "forward",
      epoch: 1,
      lag_ms: 3,
      keys: 9,
      passes: 2,
      deferred: 0,
      state: "running",
      fence: "77",
    } as const;
    await beatWorker(store, { id: "m1", role: "mirror", stats });
    const [worker] = await readWorkers(store, "mirror");
    expect(worker).toMatchObject({ id: "m1", stats });
    expect(worker?.seenMs).toBeLessThan(60_000);
  });
});
