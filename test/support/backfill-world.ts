import { expect, onTestFinished } from "vitest";
import { planBackfill } from "../../backfill/plan-chunks.ts";
import { runBackfillRole } from "../../backfill/role.ts";
import { progress } from "../../store/control/chunk-ledger.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import { install } from "../../store/control/schema.ts";
import { openTestStore, silentLog } from "./control.ts";
import { createDatabasePair, type DatabasePair, withClient } from "./databases.ts";
import { installWorld, mapping, testPlan } from "./sync-world.ts";

export const ROWS = 2_000;
/** Chunks of each table. */
export const CHUNKS = ROWS / 50;
export const POLL = { timeout: 60_000, interval: 20 };

/** Two tables to copy, nothing running yet. The one that tests spoil, `a`, comes first in the order of the plan. */
export async function openBackfillWorld(
  options: { readonly databases?: DatabasePair; readonly note?: string } = {},
) {
  const { oldUrl, newUrl } = options.databases ?? (await createDatabasePair());
  const tables =
    "create table a (id int primary key, note text); create table b (id int primary key, note text);";
  const note = options.note ?? "'a' || n";
  await withClient(newUrl, (client) => client.query(tables));
  await withClient(oldUrl, (client) =>
    client.query(
      `${tables} insert into a select n, ${note} from generate_series(1, ${ROWS}) n; insert into b select n, 'b' || n from generate_series(1, ${ROWS}) n`,
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

/** Every insert into a table takes at least this long, so that a test can step in midway. */
export async function slowDown(url: string, table: string, seconds: number): Promise<void> {
  await withClient(url, (client) =>
    client.query(`create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(${seconds}); return null; end $$;
      create trigger slow before insert on ${table} for each statement execute function slow(); alter table ${table} enable always trigger slow`),
  );
}

/** Both sides hold the same rows of a table. */
export async function expectEqual(databases: DatabasePair, table: string): Promise<void> {
  const rows = (url: string) =>
    withClient(url, async (client) => {
      const found = await client.query(
        `select count(*)::int as rows, md5(string_agg(t::text, ',' order by id)) as content from ${table} t`,
      );
      return found.rows[0] as unknown;
    });
  expect(await rows(databases.newUrl)).toEqual(await rows(databases.oldUrl));
}
