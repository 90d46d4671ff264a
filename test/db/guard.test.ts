import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  arm,
  createGuards,
  disarm,
  guardIsClosed,
  refusedCount,
} from "../../store/postgres/guard.ts";
import { unarmedTables } from "../support/unarmed-tables.ts";
import { installSide, uninstallSide } from "../../store/postgres/install-side.ts";
import {
  changeFenced,
  currentMarker,
  readState,
  writeAttemptSql,
} from "../../store/postgres/state.ts";
import { closeSession, openSession } from "../../store/postgres/session.ts";
import { createSingleDatabase, postgresVersion } from "../support/databases.ts";
import { openRaw } from "../support/raw.ts";

const TABLES = ["a", "child", "part"].map((name) => ({ schema: "public", name }));

const SHAPE = `
  create table a (id int primary key, v text);
  create table child (id int primary key, a_id int references a on delete cascade);
  create table outside (id int primary key);
  create table part (id int, r int, primary key (id, r)) partition by range (r);
  create table part_1 partition of part for values from (0) to (10);
  create table part_2 partition of part for values from (10) to (20) partition by range (r);
  create table part_2_leaf partition of part_2 for values from (10) to (20);
  insert into a values (1, 'x'), (2, 'y');
  insert into child values (1, 1);
  insert into part values (1, 1), (2, 11)`;

/** A database whose `old` side is guarded and armed. */
async function guardedDatabase(): Promise<{ url: string; admin: pg.Client; app: pg.Client }> {
  const url = await createSingleDatabase();
  const app = await openRaw(url);
  await app.query(SHAPE);
  const admin = await openSession({
    url,
    name: "test",
    application: "test",
    searchPath: "public",
    parseTypes: true,
  });
  await installSide(admin, { side: "old", plan: "test" });
  await createGuards(admin, "old", TABLES);
  await arm(admin, { side: "old", tables: TABLES, attempt: 0, timeoutMs: 5_000 });
  return { url, admin, app };
}

const close = (client: pg.Client) => client.query("select setval('crossfade.guard_old', 1)");
const open = (client: pg.Client) => client.query("select setval('crossfade.guard_old', 0)");

describe("a closed guard", () => {
  let admin: pg.Client;
  let app: pg.Client;
  let url: string;

  beforeAll(async () => {
    ({ admin, app, url } = await guardedDatabase());
    await close(admin);
  });
  afterAll(async () => {
    await Promise.all([closeSession(admin), app.end()]);
  });

  test.each<[string, string]>([
    ["INSERT", "insert into a values (3, 'z')"],
    ["UPDATE", "update a set v = 'z'"],
    ["UPDATE of no row", "update a set v = 'z' where false"],
    ["DELETE", "delete from a where id = 2"],
    ["TRUNCATE", "truncate a cascade"],
    ["COPY", "copy a from program 'echo 9'"],
    ...(postgresVersion() < 15
      ? []
      : [
          [
            "MERGE",
            "merge into a using (select 1 as id) s on a.id = s.id when matched then update set v = 'm'",
          ] satisfies [string, string],
        ]),
    ["ON CONFLICT DO NOTHING", "insert into a values (1, 'x') on conflict do nothing"],
    [
      "ON CONFLICT DO UPDATE",
      "insert into a values (1, 'x') on conflict (id) do update set v = 'c'",
    ],
    [
      "a data-modifying CTE",
      "with w as (delete from a where id = 2 returning 1) select count(*) from w",
    ],
    ["replica role", "set local session_replication_role = replica; delete from a where id = 2"],
    ["the partitioned root", "insert into part values (3, 3)"],
    ["a leaf partition", "insert into part_1 values (3, 3)"],
    ["TRUNCATE of a leaf", "truncate part_1"],
    ["a sub-partitioned partition", "update part_2 set id = 9"],
    ["a leaf of the second level", "delete from part_2_leaf"],
    ["an empty marker", "set local crossfade.mirror = ''; delete from a where id = 2"],
  ])("refuses %s", async (_, sql) => {
    const before = await refusedCount(admin, "old");
    await app.query("begin");
    await expect(app.query(sql)).rejects.toMatchObject({
      code: "CF001",
      message: expect.stringContaining("the new side is the authority"),
    });
    await app.query("rollback");
    expect(await refusedCount(admin, "old")).toBe(before + 1);
    expect(await guardIsClosed(admin, "old")).toBe(true);
  });

  test("refuses what a foreign key's cascade would do in a mapped child", async () => {
    await app.query("create table parent (id int primary key); insert into parent values (1)");
    await open(admin);
    await app.query(
      "alter table child add column p int references parent on delete cascade; update child set p = 1",
    );
    await close(admin);
    await expect(app.query("delete from parent")).rejects.toMatchObject({ code: "CF001" });
  });

  test("refuses writes to a partition made since, and reports it as unarmed", async () => {
    await app.query("create table part_3 partition of part for values from (20) to (30)");
    await expect(app.query("insert into part_3 values (1, 25)")).rejects.toMatchObject({
      code: "CF001",
    });
    await expect(app.query("insert into part values (1, 25)")).rejects.toMatchObject({
      code: "CF001",
    });
    expect(await unarmedTables(admin, "old", TABLES)).toEqual([
      { schema: "public", name: "part_3" },
    ]);
    await arm(admin, { side: "old", tables: TABLES, attempt: 0, timeoutMs: 5_000 });
    expect(await unarmedTables(admin, "old", TABLES)).toEqual([]);
    await expect(app.query("truncate part_3")).rejects.toMatchObject({ code: "CF001" });
  });

  test("lets everything else through", async () => {
    await app.query(
      "insert into outside values (1); select * from a for update; select * from part",
    );
  });

  test("refuses a role without any privilege of ours by the same rule, not by a missing grant", async () => {
    await app.query(
      `create role app_${process.pid}; grant all on a to app_${process.pid}; set role app_${process.pid}`,
    );
    await expect(app.query("insert into a values (5, 'r')")).rejects.toMatchObject({
      code: "CF001",
    });
    await open(admin);
    await app.query("insert into a values (5, 'r'); reset role; delete from a where id = 5");
    await close(admin);
    await app.query(`drop owned by app_${process.pid}; drop role app_${process.pid}`);
  });

  test.each(["repeatable read", "serializable"])(
    "refuses a %s transaction whose snapshot is older than the close",
    async (level) => {
      await open(admin);
      await app.query(`begin isolation level ${level}; select count(*) from a`);
      await close(admin);
      await expect(app.query("insert into a values (6, 's')")).rejects.toMatchObject({
        code: "CF001",
      });
      await app.query("rollback");
    },
  );

  test("waits for writers in flight and refuses those that come after, in one step", async () => {
    await open(admin);
    const other = await openRaw(url);
    await app.query("begin; insert into a values (7, 'in flight')");
    const closing = admin.query(
      "begin; select pg_advisory_xact_lock(17222, 1); select setval('crossfade.guard_old', 1); commit",
    );
    await expect
      .poll(
        async () =>
          (await other.query("select 1 from pg_locks where locktype = 'advisory' and not granted"))
            .rowCount,
      )
      .toBe(1);
    const queued = other.query("insert into a values (8, 'queued')");
    const refusal = expect(queued).rejects.toMatchObject({ code: "CF001" });
    await app.query("commit");
    await Promise.all([closing, refusal]);
    await other.end();
    expect((await app.query("select 1 from a where id = 7")).rowCount).toBe(1);
  });
});

describe("the marker of sync sessions", () => {
  let admin: pg.Client;
  let app: pg.Client;

  beforeAll(async () => {
    ({ admin, app } = await guardedDatabase());
    await admin.query("update crossfade.state set direction = 'reverse', epoch = 4");
    await close(admin);
  });
  afterAll(async () => {
    await Promise.all([closeSession(admin), app.end()]);
  });

  const marked = async (marker: string, sql: string) => {
    await app.query("begin");
    try {
      await app.query(`set local crossfade.mirror = '${marker}'; ${sql}`);
    } finally {
      await app.query("rollback");
    }
  };

  test.each([
    "insert into a values (3, 'z')",
    "truncate a cascade",
    "insert into part values (3, 3), (4, 14)",
    "delete from part_1",
  ])("that is current lets %s through a closed guard", (sql) =>
    marked(currentMarker("reverse", 4), sql),
  );

  test.each(["reverse:3", "reverse:5", "forward:4", "on", "reverse:4 "])(
    "%s is not current and is refused",
    async (marker) => {
      await expect(marked(marker, "insert into a values (3, 'z')")).rejects.toMatchObject({
        code: "CF002",
      });
    },
  );

  test("of the direction that leads away from this side is refused, even at the current epoch", async () => {
    await admin.query("update crossfade.state set direction = 'forward'");
    await expect(marked("forward:4", "insert into a values (3, 'z')")).rejects.toMatchObject({
      code: "CF002",
    });
  });

  test("ends with its transaction", async () => {
    await expect(app.query("insert into a values (3, 'z')")).rejects.toMatchObject({
      code: "CF001",
    });
  });
});

describe("arming", () => {
  let admin: pg.Client;
  let app: pg.Client;
  let url: string;

  const change = (timeoutMs = 5_000) => ({
    side: "old" as const,
    tables: TABLES,
    attempt: 0,
    timeoutMs,
  });

  beforeAll(async () => {
    ({ admin, app, url } = await guardedDatabase());
  });
  afterAll(async () => {
    await Promise.all([closeSession(admin), app.end()]);
  });

  test("disarmed, a closed guard is not asked", async () => {
    await disarm(admin, change());
    await close(admin);
    await app.query(
      "insert into a values (20, 'unguarded'); insert into part values (20, 5); insert into part_1 values (21, 5)",
    );
    await open(admin);
    expect(await unarmedTables(admin, "old", TABLES)).not.toEqual([]);
  });

  test("armed again, a partition made while it was not is covered too", async () => {
    await app.query("create table part_4 partition of part for values from (30) to (40)");
    await arm(admin, change());
    expect(await unarmedTables(admin, "old", TABLES)).toEqual([]);
  });

  test("is refused to a lower attempt, and disarming to one that runs or whose guard is closed", async () => {
    const attempt = { number: 3, kind: "flip", from: "old", to: "new", epoch: 2 } as const;
    await changeFenced(admin, {
      side: "old",
      expected: { attempt: 0 },
      lockTimeoutMs: 1_000,
      change: writeAttemptSql("old", attempt),
    });
    await admin.query("alter table a disable trigger crossfade_guard");
    await expect(arm(admin, change())).rejects.toMatchObject({ code: "STALE" });
    await expect(disarm(admin, { ...change(), attempt: 3 })).rejects.toMatchObject({
      code: "STALE",
    });
    await admin.query("update crossfade.state set attempt_ended = true");
    await close(admin);
    await expect(disarm(admin, { ...change(), attempt: 3 })).rejects.toMatchObject({
      code: "STALE",
    });
    await open(admin);
    await disarm(admin, { ...change(), attempt: 3 });
    await admin.query("update crossfade.state set attempt = 0");
    await arm(admin, change());
    expect(await readState(admin, "old")).toMatchObject({
      attempt: 0,
      ended: true,
      direction: "forward",
      epoch: 1,
    });
  });

  test("gives up at its deadline, names who is in the way, and made nobody wait for long", async () => {
    await disarm(admin, change());
    const writer = await openRaw(url);
    await app.query("begin; update child set id = id");
    const giveUp = expect(arm(admin, change(400))).rejects.toMatchObject({
      code: "TIMEOUT",
      message: expect.stringMatching(
        /"child".*pid \d+ \(client backend, idle in transaction.*update child/,
      ),
    });
    await writer.query("set statement_timeout = '300ms'; update child set id = id where false");
    await giveUp;
    await app.query("commit");
    await writer.end();
    await arm(admin, change());
  });

  test("a vacuum in the way delays it, never the app", async () => {
    await disarm(admin, change());
    await app.query(
      "insert into a select n, repeat('x', 500) from generate_series(1000, 9000) n; delete from a where id > 5000",
    );
    const vacuumer = await openRaw(url);
    await vacuumer.query("set vacuum_cost_delay = 20; set vacuum_cost_limit = 20");
    const vacuuming = vacuumer.query("vacuum a");
    await expect
      .poll(async () => (await app.query("select 1 from pg_stat_progress_vacuum")).rowCount)
      .toBe(1);
    let armed = false;
    const arming = arm(admin, change(60_000)).then(() => (armed = true));
    await app.query("set statement_timeout = '500ms'");
    for (let n = 0; n < 20; n += 1)
      await app.query("update a set v = 'while vacuuming' where id = 1");
    expect(armed).toBe(false);
    await Promise.all([vacuuming, arming]);
    await vacuumer.end();
    expect(await unarmedTables(admin, "old", TABLES)).toEqual([]);
  });

  test("a table that is not there is named", async () => {
    await expect(
      createGuards(admin, "old", [{ schema: "public", name: "nowhere" }]),
    ).rejects.toMatchObject({ code: "DATABASE_UNFIT" });
  });
});

describe("installing a side", () => {
  test("twice changes nothing and resets nothing; another plan is refused; uninstalling leaves nothing", async () => {
    const { admin, app } = await guardedDatabase();
    await close(admin);
    await installSide(admin, { side: "old", plan: "test" });
    await installSide(admin, { side: "new", plan: "test" });
    expect(await guardIsClosed(admin, "old")).toBe(true);
    expect(await guardIsClosed(admin, "new")).toBe(true);
    await expect(installSide(admin, { side: "old", plan: "other" })).rejects.toMatchObject({
      code: "REFUSED",
    });

    await uninstallSide(admin, "old");
    expect(await readState(admin, "new")).toMatchObject({ plan: "test", epoch: 1, attempt: 0 });
    await app.query("insert into a values (99, 'free'); truncate part");
    await uninstallSide(admin, "new");
    await uninstallSide(admin, "new");
    const left = await app.query(
      "select 1 from pg_namespace where nspname = 'crossfade' union all select 1 from pg_trigger where tgname like 'crossfade%'",
    );
    expect(left.rowCount).toBe(0);
    await Promise.all([closeSession(admin), app.end()]);
  });
});
