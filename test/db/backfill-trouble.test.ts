import { expect, test } from "vitest";
import { resetChunks } from "../../store/control/chunk-ledger.ts";
import { readWorkers } from "../../store/control/workers.ts";
import { CHUNKS, openBackfillWorld, POLL, ROWS } from "../support/backfill-world.ts";
import { withClient } from "../support/databases.ts";

test("a table that cannot be written does not keep the others waiting, and resume finishes it", async () => {
  const { newUrl, store, start, done, count } = await openBackfillWorld();
  // Not a refused row but trouble with the table: every attempt fails.
  await withClient(newUrl, (client) =>
    client.query(`create function no() returns trigger language plpgsql as $$ begin raise exception 'out of order' using errcode = '55000'; end $$;
      create trigger no before insert on a for each statement execute function no(); alter table a enable always trigger no`),
  );
  start();
  await expect.poll(async () => (await done("b"))?.done, POLL).toBe(CHUNKS);
  expect(await done("a")).toMatchObject({ done: 0 });
  expect(await count("b")).toBe(ROWS);
  await withClient(newUrl, (client) => client.query("drop trigger no on a"));
  await resetChunks(store, "forward", { onlyFailed: true });
  await expect.poll(async () => (await done("a"))?.done, POLL).toBe(CHUNKS);
  expect(await done("a")).toMatchObject({ rows: ROWS, failed: 0 });
  expect(await count("a")).toBe(ROWS);
});

test("a constraint that some rows do not fulfil: they stand in quarantine, all others arrive", async () => {
  const { oldUrl, newUrl, start, done, count } = await openBackfillWorld();
  await withClient(oldUrl, (client) =>
    client.query("update a set note = 'poison' where id in (1234, 1999)"),
  );
  await withClient(newUrl, (client) =>
    client.query("alter table a add constraint clean check (note <> 'poison')"),
  );
  start();
  await expect.poll(async () => (await done("a"))?.done, POLL).toBe(CHUNKS);
  await expect.poll(async () => (await done("b"))?.done, POLL).toBe(CHUNKS);
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
  const { oldUrl, newUrl, start, done, count } = await openBackfillWorld();
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
    await expect.poll(async () => (await done(table))?.done, POLL).toBe(CHUNKS);
    expect(await done(table)).toMatchObject({ rows: ROWS });
    expect(await count(table)).toBe(ROWS);
  }
});

test("rows that the mirror brought before are merged, and what is there already is left alone", async () => {
  const { newUrl, start, done, count } = await openBackfillWorld();
  // The first rows of a chunk are not there, later ones are: the plain insert is tried and undone.
  await withClient(newUrl, (client) =>
    client.query(
      "set session_replication_role = replica; insert into a select n, 'stale' from generate_series(45, 2000, 50) n",
    ),
  );
  start();
  await expect.poll(async () => (await done("a"))?.done, POLL).toBe(CHUNKS);
  expect(await count("a")).toBe(ROWS);
  const { rows } = await withClient(newUrl, (client) =>
    client.query("select id from a where note = 'stale'"),
  );
  expect(rows).toEqual([]);
});

test("workers without a chunk open no sessions, and begin again when there are chunks", async () => {
  const { newUrl, store, start, done, count } = await openBackfillWorld();
  start();
  const copied = async () => [(await done("a"))?.done, (await done("b"))?.done];
  await expect.poll(copied, POLL).toEqual([CHUNKS, CHUNKS]);
  const sessions = () =>
    withClient(newUrl, async (client) => {
      const { rows } = await client.query(
        "select from pg_stat_activity where datname = current_database() and application_name like 'crossfade backfill%'",
      );
      return rows.length;
    });
  await expect.poll(sessions, POLL).toBe(0);
  const elsewhere = new URL("/postgres", newUrl).href;
  const allow = (connections: boolean) =>
    withClient(elsewhere, (client) =>
      client.query(
        `alter database ${new URL(newUrl).pathname.slice(1)} allow_connections ${connections}`,
      ),
    );
  await allow(false);
  // They look for chunks once a second, and say so within half of one if they cannot go on.
  const beats = new Set<number>();
  let trouble: string | undefined;
  await expect
    .poll(async () => {
      const [worker] = await readWorkers(store, "backfill");
      trouble ??= worker?.stats.why;
      beats.add(Math.round((performance.now() - (worker?.seenMs ?? 0)) / 250));
      return beats.size;
    }, POLL)
    .toBeGreaterThan(4);
  expect(trouble).toBeUndefined();
  await allow(true);
  await withClient(newUrl, (client) => client.query("truncate a, b"));
  await resetChunks(store, "forward");
  await expect.poll(copied, POLL).toEqual([CHUNKS, CHUNKS]);
  expect([await count("a"), await count("b")]).toEqual([ROWS, ROWS]);
});
