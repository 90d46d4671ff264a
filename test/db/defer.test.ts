import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { deferFindings } from "../../backfill/doctor/defer-findings.ts";
import { readDeferred, setDeferred } from "../../store/control/deferred-objects.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import { compilePlan } from "../../store/postgres/engine.ts";
import type { Plan } from "../../config/plan-types.ts";
import { runBackfillRole } from "../../backfill/role.ts";
import { runMirrorRole } from "../../proxy/mirror/role.ts";
import { runEffect } from "../../switchover/effects.ts";
import { openRealEngine } from "../../switchover/wiring.ts";
import type { WalkResult } from "../../switchover/walk.ts";
import { ask, startController, statusOf } from "../support/controller-world.ts";
import { openTestListener, silentLog } from "../support/control.ts";
import { openDeferWorld } from "../support/defer-world.ts";

const POLL = { timeout: 60_000, interval: 20 };
const DEFERRED = ["customers_name", "orders_customer", 'orders "note"'];
const KEYS = ["orders_customer_fk", "orders_old_fk"];

/** A transaction that stays open until the test says so. */
async function openTransaction(url: string, ...statements: string[]) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  onTestFinished(() => client.end().catch(() => {}));
  await client.query("begin isolation level repeatable read");
  for (const statement of statements) await client.query(statement);
  return { end: () => client.query("rollback") };
}

function run(role: typeof runMirrorRole, plan: Plan): () => Promise<void> {
  const abort = new AbortController();
  const running = role({ plan, log: silentLog, signal: abort.signal });
  const stop = async () => {
    abort.abort();
    await running;
  };
  onTestFinished(stop);
  return stop;
}

test("what is deferred is gone while rows are copied and back before anything is verified; going back brings it back too", async () => {
  const { plan, objects, states, drop, onNew } = await openDeferWorld();
  const before = await objects();
  await startController(plan);
  await ask(plan, "advance", { to: "dual-write" });
  const dry = (await ask(plan, "advance", { to: "backfill", dryRun: true })) as WalkResult;
  const sql = dry.steps.flatMap((step) => step.sql ?? []).map((each) => each.sql);
  expect(sql).toContain('drop index if exists "public"."customers_name"');
  expect(sql).toContain(
    "CREATE INDEX CONCURRENTLY customers_name ON public.customers USING btree (lower(name) text_pattern_ops) WHERE (name <> ''::text)",
  );
  expect(await objects()).toEqual(before);
  // A controller that died after the drop and before the phase was set: the next one brings it back by itself.
  await drop();
  await expect.poll(objects, POLL).toEqual(before);

  // Half built, on the way to off: whoever builds lets go of the tables. And a row whose customer is not there yet.
  const stopRoles = [run(runMirrorRole, plan), run(runBackfillRole, plan)];
  const snapshot = await openTransaction(plan.new.database, "select from pg_am");
  await ask(plan, "advance", { to: "backfill", wait: true });
  await expect.poll(states, POLL).toMatchObject({ customers_name: "building" });
  await onNew(
    "set crossfade.mirror = 'forward:1'; set session_replication_role = replica; insert into orders values (999, 998, '')",
  );
  const cleaning = ask(plan, "clean") as Promise<{ unproven: string[] }>;
  const guards = () => onNew("select from pg_trigger where tgname like 'crossfade%'");
  await expect.poll(async () => (await guards()).rowCount, POLL).toBe(0);
  await snapshot.end();
  expect((await cleaning).unproven).toEqual([
    'alter table "public"."orders" validate constraint "orders_customer_fk"',
  ]);
  expect(await objects()).toHaveLength(before.length);
  for (const stop of stopRoles) await stop();

  run(runMirrorRole, plan);
  await ask(plan, "advance", { to: "backfill", wait: true });
  await expect(ask(plan, "advance", { to: "verify" })).rejects.toThrow(
    /rebuild: fail, 0 of 5 .* waits for index customers_name of customers/,
  );
  expect((await objects()).join("\n")).not.toMatch(/customers_name|orders_customer|orders_old_fk/);
  expect((await objects()).join("\n")).toMatch(/customers_once[\s\S]*customers_pkey/);
  expect((await statusOf(plan)).backfill.deferred).toHaveLength(5);
  run(runBackfillRole, plan);
  await ask(plan, "advance", { to: "shadow", wait: true });
  expect(await objects()).toEqual(before);
  expect(new Set(Object.values(await states()))).toEqual(new Set(["built"]));
});

test("killed at any step, whoever comes next finishes it", async () => {
  const { newUrl, onNew, objects, states, drop, build, child, store } = await openDeferWorld();
  const before = await objects();
  // Recorded, and half of it dropped: somebody reads orders.
  const reader = await openTransaction(newUrl, "select from orders");
  const dropping = child("drop");
  await expect.poll(async () => (await objects()).join("\n"), POLL).not.toContain("customers_name");
  await dropping.kill();
  expect(Object.keys(await states()).toSorted()).toEqual([...DEFERRED, ...KEYS].toSorted());
  await reader.end();
  expect(await build()).toEqual([]);
  expect(await objects()).toEqual(before);
  // Dropped, and killed at it again and again.
  await drop();
  await drop();
  expect(await objects()).toHaveLength(before.length - 5);

  // In the middle of CREATE INDEX CONCURRENTLY, which waits for an old snapshot.
  const snapshot = await openTransaction(newUrl, "select from customers");
  const building = child("build");
  const invalid = async () =>
    (await onNew("select indexrelid::regclass::text as name from pg_index where not indisvalid"))
      .rows;
  await expect.poll(invalid, POLL).toEqual([{ name: "customers_name" }]);
  await building.kill();
  // Its session notices; until then nobody else builds.
  const sessions = () =>
    onNew(
      "select from pg_stat_activity where datname = current_database() and application_name like 'crossfade defer%'",
    );
  await expect.poll(async () => (await sessions()).rowCount, POLL).toBe(0);
  expect(await invalid()).toEqual([{ name: "customers_name" }]);
  expect(await states()).toMatchObject({ customers_name: "building", orders_customer: "dropped" });
  await snapshot.end();

  // A foreign key that is there and not yet proven, as a kill between the two leaves it; then a copy that begins anew.
  await onNew(
    "alter table orders add constraint orders_customer_fk foreign key (customer_id) references customers (id) on delete cascade deferrable initially deferred not valid",
  );
  const key = (await readDeferred(store)).find(({ name }) => name === "orders_customer_fk");
  await setDeferred(store, key!, { state: "building" });
  await drop();
  expect(await build()).toEqual([]);
  expect(await objects()).toEqual(before);
});

test("what cannot be built is said and keeps nothing else; what a person makes by that name stays", async () => {
  const { onNew, objects, states, drop, build, plan, store } = await openDeferWorld();
  await onNew("create index orders_part on orders ((100 / id))");
  await drop();
  // As the copy does it: no foreign key is looked at.
  await onNew(
    "set session_replication_role = replica; insert into orders values (0, 77, 'an orphan')",
  );
  const left = await build();
  expect(left.map(({ name, state }) => [name, state])).toEqual([
    ["orders_part", "dropped"],
    ["orders_customer_fk", "unproven"],
  ]);
  expect(left[0]?.error).toContain("division by zero");
  expect(left[1]?.error).toContain("violates foreign key constraint");
  expect(await states()).toMatchObject({ customers_name: "built", orders_customer: "built" });

  await onNew(
    "create index orders_part on orders (id); insert into customers values (77, 'found')",
  );
  expect(await build()).toEqual([]);

  // Whatever asks: not while new may answer reads.
  const listener = await openTestListener(store);
  const engine = openRealEngine({ plan, store, listener, log: silentLog });
  const { signal } = new AbortController();
  const lead = async () => {};
  const execution = {
    plan,
    store,
    engine,
    log: silentLog,
    lead,
    signal,
    ending: signal,
    by: "test",
  };
  const defer = () => runEffect(execution, { do: "defer" });
  const before = await objects();
  const { phase, epoch } = await readMigration(store);
  await setMigration(store, { phase, epoch }, { phase: "canary", readsNew: 0.01 });
  await expect(defer()).rejects.toThrow(/drops nothing in phase canary/);
  expect(await objects()).toEqual(before);

  // A role that could drop, but not build.
  await onNew(
    "create role poor login password 'poor'; grant select, references on all tables in schema public to poor",
  );
  const url = new URL(plan.new.database);
  [url.username, url.password] = ["poor", "poor"];
  const poor = { ...plan, new: { ...plan.new, database: url.href } };
  const findings = await deferFindings(poor, await compilePlan(plan, "forward", "test", "doctor"));
  expect(findings.map(({ severity, what }) => `${severity}: ${what}`).join("\n")).toMatch(
    /error: role poor does not own public.customers[\s\S]*error: role poor may not create in schema public[\s\S]*ok: dropped during .* customers_name of customers[\s\S]*ok: stays, because it decides which rows are refused: customers_once of customers/,
  );
});
