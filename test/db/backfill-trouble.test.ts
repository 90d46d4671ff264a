import { expect, onTestFinished, test } from "vitest";
import { planBackfill } from "../../backfill/plan-chunks.ts";
import { runBackfillRole } from "../../backfill/role.ts";
import { progress, resetChunks } from "../../store/control/chunk-ledger.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import { install } from "../../store/control/schema.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { installWorld, mapping, testPlan } from "../support/sync-world.ts";

const ROWS = 2_000;
const POLL = { timeout: 60_000, interval: 20 };

/** Two tables to copy, nothing running yet. The bad one comes first in the order of the plan. */
async function openWorld() {
  const { oldUrl, newUrl } = await createDatabasePair();
  const tables =
    "create table a (id int primary key, note text); create table b (id int primary key, note text);";
  await withClient(newUrl, (client) => client.query(tables));
  await withClient(oldUrl, (client) =>
    client.query(
      `${tables} insert into a select n, 'a' || n from generate_series(1, ${ROWS}) n; insert into b select n, 'b' || n from generate_series(1, ${ROWS}) n`,
    ),
  );
  const plan = testPlan({ oldUrl, newUrl, forward: [mapping("a", "a"), mapping("b", "b")] });
  const store = openTestStore(oldUrl, { plan: plan.name });
  await install(store);
  await installWorld(plan, "forward");
  await setMigration(store, await readMigration(store), { phase: "backfill" });
  await planBackfill(plan, store, { direction: "forward", epoch: 1 });
  const start = () => {
    const abort = new AbortController();
    const running = runBackfillRole({ plan, log: silentLog, signal: abort.signal });
    onTestFinished(async () => {
      abort.abort();
      await running;
    });
  };
  const done = async (table: string) =>
    (await progress(store, "forward")).find((each) => each.table === table);
  const count = (table: string) =>
    withClient(newUrl, async (client) => {
      const { rows } = await client.query<{ n: number }>(`select count(*)::int as n from ${table}`);
      return rows[0]?.n;
    });
  return { oldUrl, newUrl, store, start, done, count };
}

test("a table that cannot be written does not keep the others waiting, and resume finishes it", async () => {
  const { newUrl, store, start, done, count } = await openWorld();
  // Not a refused row but trouble with the table: every attempt fails.
  await withClient(newUrl, (client) =>
    client.query(`create function no() returns trigger language plpgsql as $$ begin raise exception 'out of order' using errcode = '55000'; end $$;
      create trigger no before insert on a for each statement execute function no(); alter table a enable always trigger no`),
  );
  start();
  await expect.poll(async () => (await done("b"))?.done, POLL).toBe(ROWS / 50);
  expect(await done("a")).toMatchObject({ done: 0 });
  expect(await count("b")).toBe(ROWS);
  await withClient(newUrl, (client) => client.query("drop trigger no on a"));
  await resetChunks(store, "forward", { onlyFailed: true });
  await expect.poll(async () => (await done("a"))?.done, POLL).toBe(ROWS / 50);
  expect(await done("a")).toMatchObject({ rows: ROWS, failed: 0 });
  expect(await count("a")).toBe(ROWS);
});

test("a constraint added midway: the rows it refuses stand in quarantine, all others arrive", async () => {
  const { oldUrl, newUrl, start, done, count } = await openWorld();
  await withClient(oldUrl, (client) =>
    client.query("update a set note = 'poison' where id in (1234, 1999)"),
  );
  await withClient(newUrl, (client) =>
    client.query("alter table a add constraint clean check (note <> 'poison')"),
  );
  start();
  await expect.poll(async () => (await done("a"))?.done, POLL).toBe(ROWS / 50);
  await expect.poll(async () => (await done("b"))?.done, POLL).toBe(ROWS / 50);
  expect(await count("a")).toBe(ROWS - 2);
  const { rows } = await withClient(newUrl, (client) =>
    client.query<{ key: string[]; sqlstate: string }>(
      "select key, sqlstate from crossfade.quarantine order by 1",
    ),
  );
  expect(rows).toEqual([
    { key: ["1234"], sqlstate: "23514" },
    { key: ["1999"], sqlstate: "23514" },
  ]);
});

test("every session of both databases is ended again and again: each row arrives once", async () => {
  const { oldUrl, newUrl, start, done, count } = await openWorld();
  start();
  for (let round = 0; round < 6; round += 1) {
    for (const url of [oldUrl, newUrl]) {
      await withClient(url, (client) =>
        client.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
        ),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  for (const table of ["a", "b"]) {
    await expect.poll(async () => (await done(table))?.done, POLL).toBe(ROWS / 50);
    expect(await done(table)).toMatchObject({ rows: ROWS });
    expect(await count(table)).toBe(ROWS);
  }
});

test("rows that the mirror brought before are merged, and what is there already is left alone", async () => {
  const { newUrl, start, done, count } = await openWorld();
  // The first rows of a chunk are not there, later ones are: the plain insert is tried and undone.
  await withClient(newUrl, (client) =>
    client.query(
      "set session_replication_role = replica; insert into a select n, 'stale' from generate_series(45, 2000, 50) n",
    ),
  );
  start();
  await expect.poll(async () => (await done("a"))?.done, POLL).toBe(ROWS / 50);
  expect(await count("a")).toBe(ROWS);
  const { rows } = await withClient(newUrl, (client) =>
    client.query("select id from a where note = 'stale'"),
  );
  expect(rows).toEqual([]);
});
