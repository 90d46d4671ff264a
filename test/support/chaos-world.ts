import pg from "pg";
import { expect } from "vitest";
import { runVerify } from "../../backfill/verify.ts";
import { loadPlan } from "../../config/load.ts";
import type { Plan } from "../../config/plan-types.ts";
import { progress } from "../../store/control/chunk-ledger.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { install } from "../../store/control/schema.ts";
import { openTestStore, silentLog } from "./control.ts";
import { createDatabasePair, withClient } from "./databases.ts";
import { writePlanFile } from "./plan-files.ts";
import type { Random } from "../../examples/support/random.ts";
import { installWorld } from "./sync-world.ts";
import { testedFeed } from "./tested-feed.ts";

const OLD = `
  create table items (id bigint primary key, owner text not null, name text, qty numeric, note text);
  create table lines (shop text collate "C", no int, item bigint, label text, primary key (shop, no));`;
const NEW = `
  create table things (id bigint primary key, owner text not null, title text, qty numeric);
  create table notes (thing_id bigint primary key, body text not null);
  create table lines (shop text, no int, item bigint, label text, primary key (shop, no));
  create table shops (name text primary key);`;
const PLAN = {
  forward: {
    things: { from: "items", set: { title: "name" } },
    notes: { from: "items", where: "note is not null", set: { thing_id: "id", body: "note" } },
    lines: { from: "lines" },
    shops: { from: "lines", own: "none", set: { name: "shop" } },
  },
};
/** What must be equal: [on old, on new]. */
const EXPECTED = {
  things: [
    "select id, owner, name, qty from items order by id",
    "select id, owner, title, qty from things order by id",
  ],
  notes: [
    "select id, note from items where note is not null order by id",
    "select thing_id, body from notes order by thing_id",
  ],
  lines: [
    'select * from lines order by shop collate "C", no',
    'select * from lines order by shop collate "C", no',
  ],
} as const;

/** Two databases with rows, a plan between them, installed and in the phase backfill, nothing running yet. */
export interface ChaosWorld {
  readonly plan: Plan;
  readonly planFile: string;
  readonly store: ControlStore;
  readonly oldUrl: string;
  readonly newUrl: string;
}

export async function openChaosWorld(): Promise<ChaosWorld> {
  const { oldUrl, newUrl } = await createDatabasePair();
  await withClient(newUrl, (client) => client.query(NEW));
  await withClient(oldUrl, async (client) => {
    await client.query(OLD);
    await client.query(
      "insert into items select n, 'o' || n % 7, 'name ' || n, n::numeric / 4, case when n % 3 = 0 then 'note ' || n end from generate_series(1, 600) n",
    );
    await client.query(
      "insert into lines select 'shop ' || n % 5, n, n, null from generate_series(1, 300) n",
    );
  });
  const planFile = writePlanFile({
    name: "chaos",
    feed: testedFeed(),
    old: { database: oldUrl, app: "http://127.0.0.1:1" },
    new: { database: newUrl, app: "http://127.0.0.1:1" },
    backfill: { workers: 2, chunk: 40, throttle: { active: 3, p99: "1.2x" } },
    ...PLAN,
  });
  const plan = loadPlan(planFile);
  const store = openTestStore(oldUrl, { plan: "chaos" });
  await install(store);
  await installWorld(plan, "forward");
  await setMigration(store, await readMigration(store), { phase: "backfill" });
  return { plan, planFile, store, oldUrl, newUrl };
}

/** Every chunk is copied, nobody writes any more, and then every row is equal: by our own verify and by plain SQL. */
export async function expectEqualRows(
  world: ChaosWorld,
  stopWriters: () => Promise<unknown>,
): Promise<void> {
  const { plan, store, oldUrl, newUrl } = world;
  const copied = async () =>
    (await progress(store, "forward")).every((table) => table.done === table.chunks);
  await expect.poll(copied, { timeout: 60_000, interval: 50 }).toBe(true);
  await stopWriters();
  const run = await runVerify({
    plan,
    store,
    log: silentLog,
    direction: "forward",
    epoch: 1,
    by: "test",
    repair: false,
  });
  const { error, missing, extra, different } = run;
  expect({ error, missing, extra, different }).toEqual({
    error: undefined,
    missing: 0,
    extra: 0,
    different: 0,
  });
  for (const [name, [oldSql, newSql]] of Object.entries(EXPECTED)) {
    expect(await rowsOf(newUrl, newSql), name).toEqual(await rowsOf(oldUrl, oldSql));
  }
  expect(await rowsOf(newUrl, "select state, reason from crossfade.quarantine")).toEqual([]);
}

async function rowsOf(url: string, sql: string): Promise<unknown[]> {
  return withClient(
    url,
    async (client) => (await client.query({ text: sql, rowMode: "array" })).rows,
  );
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Inserts, updates, deletes, changes keys, inserts deleted keys again, in transactions of several rows, some rolled back. */
export class Writer {
  committed = 0;
  readonly #url: string;
  readonly #random: Random;
  #stopped = false;

  constructor(url: string, random: Random) {
    this.#url = url;
    this.#random = random;
  }

  stop(): void {
    this.#stopped = true;
  }

  async run(): Promise<void> {
    const client = new pg.Client({ connectionString: this.#url });
    await client.connect();
    try {
      while (!this.#stopped) {
        await this.#transaction(client);
        await pause(this.#random.integer(4));
      }
    } finally {
      await client.end();
    }
  }

  async #transaction(client: pg.Client): Promise<void> {
    await client.query("begin");
    try {
      const statements = 1 + this.#random.integer(4);
      for (let i = 0; i < statements; i += 1) await this.#statement(client);
      const commit = this.#random.chance(0.85);
      await client.query(commit ? "commit" : "rollback");
      if (commit) this.committed += 1;
    } catch (error) {
      await client.query("rollback");
      // Two writers choosing the same key, or each other's locks, are part of the game.
      if (!(error instanceof pg.DatabaseError) || !["23505", "40P01"].includes(error.code ?? ""))
        throw error;
    }
  }

  async #statement(client: pg.Client): Promise<void> {
    const random = this.#random;
    const id = random.integer(700);
    const text = `w${random.integer(1_000_000)}`;
    const shop = `shop ${random.integer(7)}`;
    const statements: (() => Promise<unknown>)[] = [
      () =>
        client.query(
          "insert into items values ($1, $2, $3, $4, $5) on conflict (id) do update set name = excluded.name, qty = excluded.qty",
          [id, "o", text, random.integer(1000) / 8, random.chance(0.5) ? text : null],
        ),
      () =>
        client.query("update items set name = $2, note = $3 where id = $1", [
          id,
          text,
          random.chance(0.5) ? text : null,
        ]),
      () => client.query("delete from items where id = $1", [id]),
      () => client.query("update items set id = $2 where id = $1", [id, random.integer(700)]),
      () => client.query("update items set qty = qty + 0.25 where id between $1 and $1 + 20", [id]),
      () =>
        client.query("insert into lines values ($1, $2, $3, $4) on conflict do nothing", [
          shop,
          random.integer(400),
          id,
          text,
        ]),
      () =>
        client.query("update lines set label = $2 where shop = $1 and no % 10 = $3", [
          shop,
          text,
          random.integer(10),
        ]),
      () =>
        client.query("update lines set shop = $2 where shop = $1 and no = $3", [
          shop,
          `shop ${random.integer(7)}`,
          random.integer(400),
        ]),
      () =>
        client.query("delete from lines where shop = $1 and no = $2", [shop, random.integer(400)]),
    ];
    await random.pick(statements)();
  }
}
