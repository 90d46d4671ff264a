import { spawn } from "node:child_process";
import { once } from "node:events";
import { onTestFinished } from "vitest";
import { deferObjects } from "../../backfill/deferring.ts";
import { rebuildDeferred } from "../../backfill/rebuilding.ts";
import { loadPlan } from "../../config/load.ts";
import { readDeferred } from "../../store/control/deferred-objects.ts";
import { install } from "../../store/control/schema.ts";
import { compilePlan } from "../../store/postgres/engine.ts";
import { openTestStore, silentLog } from "./control.ts";
import { createDatabasePair, withClient } from "./databases.ts";
import { writePlanFile } from "./plan-files.ts";

const TABLES = `
  create table customers (id int primary key, name text not null);
  create table orders (id int primary key, customer_id int not null, note text not null);
`;

/** On new: indexes and foreign keys of every kind, those that are deferred and those that stay. */
const MORE_ON_NEW = `
  create index customers_name on customers (lower(name) text_pattern_ops) where name <> '';
  comment on index customers_name is 'how people are found';
  create unique index customers_once on customers (name, id);
  create index orders_customer on orders using hash (customer_id);
  create index "orders ""note""" on orders (note desc nulls last) include (id) with (fillfactor = 70);
  alter table orders add constraint orders_customer_fk foreign key (customer_id) references customers (id) on delete cascade deferrable initially deferred;
  comment on constraint orders_customer_fk on orders is 'whose it is';
  alter table orders add constraint orders_old_fk foreign key (id) references customers (id) not valid;
`;

/** A plan that defers all it can, between two databases with a few rows on old. No role runs. */
export async function openDeferWorld(rows = 20) {
  const { oldUrl, newUrl } = await createDatabasePair();
  await withClient(oldUrl, (client) =>
    client.query(`${TABLES}
      insert into customers select n, 'name ' || n from generate_series(1, ${rows}) n;
      insert into orders select n, n, 'note ' || n from generate_series(1, ${rows}) n`),
  );
  await withClient(newUrl, (client) => client.query(`${TABLES} ${MORE_ON_NEW}`));
  const file = writePlanFile({
    name: "deferring",
    old: { database: oldUrl, app: "http://127.0.0.1:1" },
    new: { database: newUrl, app: "http://127.0.0.1:1" },
    forward: { customers: { from: "customers" }, orders: { from: "orders" } },
    backfill: { defer: ["indexes", "foreign_keys"] },
    shadow: { sample: 0 },
    verify: { continuous: false },
  });
  const plan = loadPlan(file);
  const store = openTestStore(oldUrl, { plan: plan.name });
  await install(store);
  const options = { plan, store, log: silentLog, signal: new AbortController().signal };
  return {
    plan,
    store,
    newUrl,
    drop: async () =>
      deferObjects(options, await compilePlan(plan, "forward", "test", "defer-world")),
    build: () => rebuildDeferred(options, { wanted: async () => true, wait: true }),
    /** The same in a process of its own, to be killed. */
    child: (does: "drop" | "build") => {
      const script = new URL("defer-child.ts", import.meta.url).pathname;
      const child = spawn(process.execPath, [script, does, file], { stdio: "inherit" });
      onTestFinished(() => void child.kill("SIGKILL"));
      return {
        async kill() {
          child.kill("SIGKILL");
          if (child.signalCode === null) await once(child, "exit");
        },
      };
    },
    states: async () =>
      Object.fromEntries((await readDeferred(store)).map(({ name, state }) => [name, state])),
    onNew: (sql: string) => withClient(newUrl, (client) => client.query(sql)),
    objects: () => objectsOf(newUrl),
  };
}

/** Every index and foreign key of a database's tables, with all that belongs to it. */
async function objectsOf(url: string): Promise<string[]> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ what: string }>(
      `select format('%s %s %s', pg_get_indexdef(x.indexrelid), x.indisvalid, obj_description(x.indexrelid)) as what
       from pg_index x join pg_class c on c.oid = x.indrelid where c.relnamespace = 'public'::regnamespace
       union all
       select format('%s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), obj_description(oid))
       from pg_constraint where contype = 'f' order by 1`,
    );
    return rows.map(({ what }) => what);
  });
}
