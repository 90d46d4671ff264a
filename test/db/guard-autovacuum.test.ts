import { expect, test } from "vitest";
import { startEmbeddedPostgres } from "../../examples/support/embedded-postgres.ts";
import { arm } from "../../store/postgres/guard.ts";
import { unarmedTables } from "../support/unarmed-tables.ts";
import { installSide } from "../../store/postgres/install-side.ts";
import { closeSession, openSession } from "../../store/postgres/session.ts";
import { openRaw } from "../support/raw.ts";

/** A server of its own: how eager autovacuum is can only be set for a whole server. */
test("an autovacuum that would run for hours does not keep a table from being armed", async () => {
  const server = await startEmbeddedPostgres({
    settings: { autovacuum_naptime: "1", max_connections: "20" },
  });
  try {
    const url = await server.createDatabase("busy");
    const app = await openRaw(url);
    await app.query(`create table a (id int primary key, v text) with (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
      insert into a select n, repeat('x', 500) from generate_series(1, 20000) n;
      delete from a where id % 2 = 0`);
    const running = "select 1 from pg_stat_progress_vacuum where relid = 'a'::regclass";
    await expect.poll(async () => (await app.query(running)).rowCount, { timeout: 20_000 }).toBe(1);

    const admin = await openSession({
      url,
      name: "test",
      application: "test",
      searchPath: "public",
      parseTypes: true,
    });
    const tables = [{ schema: "public", name: "a" }];
    await installSide(admin, { side: "old", plan: "test" });
    await arm(admin, { side: "old", tables, attempt: 0, timeoutMs: 10_000 });
    expect(await unarmedTables(admin, "old", tables)).toEqual([]);
    await Promise.all([closeSession(admin), app.end()]);
  } finally {
    await server.stop();
  }
});
