import { onTestFinished } from "vitest";
import { runBackfillRole } from "../../backfill/role.ts";
import type { Context } from "../../cli/command.ts";
import { prepare } from "../../cli/prepare.ts";
import { request } from "../../cli/request.ts";
import type { Log } from "../../config/lifecycle.ts";
import type { Plan } from "../../config/plan-types.ts";
import { runMirrorRole } from "../../proxy/mirror/role.ts";
import { listen } from "../../store/control/listen.ts";
import { closeControlStore, openControlStore } from "../../store/control/open.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { install } from "../../store/control/schema.ts";
import { beatSidecar } from "../../store/control/sidecars.ts";
import { watchState } from "../../store/control/watch.ts";
import { Controller } from "../../switchover/controller.ts";
import type { Engine } from "../../switchover/engine.ts";
import type { RequestKind } from "../../switchover/requests.ts";
import { readStatus } from "../../switchover/status.ts";
import type { Status } from "../../switchover/status.ts";
import { openRealEngine } from "../../switchover/wiring.ts";
import { silentLog } from "./control.ts";
import { createDatabasePair, createSingleDatabase, withClient } from "./databases.ts";
import { mapping, testPlan } from "./sync-world.ts";

/** A small migration on two real servers: items renames a column, and maps back. */
export async function itemsPlan(overrides: Partial<Plan> = {}): Promise<Plan> {
  const { oldUrl, newUrl } = await createDatabasePair();
  await withClient(oldUrl, (client) =>
    client.query(`create table items (id serial primary key, name text not null, note text);
      insert into items (name, note) select 'name ' || n, 'note ' || n from generate_series(1, 120) n`),
  );
  await withClient(newUrl, (client) =>
    client.query("create table items (id serial primary key, title text not null, note text)"),
  );
  const plan = testPlan({
    oldUrl,
    newUrl,
    forward: [mapping("items", "items", { set: new Map([["title", "name"]]) })],
    reverse: [mapping("items", "items", { set: new Map([["name", "title"]]) })],
  });
  return {
    ...plan,
    canary: { steps: [0.1, 0.5], stayMs: 0, fallback: true, fallbackAfterMs: 5_000 },
    ...overrides,
  };
}

/** The same between two schemas of one database. */
export async function itemsPlanInOneDatabase(): Promise<Plan> {
  const url = await createSingleDatabase();
  await withClient(url, (client) =>
    client.query(`create schema old_app; create schema new_app;
      create table old_app.items (id serial primary key, name text not null, note text);
      create table new_app.items (id serial primary key, title text not null, note text);
      insert into old_app.items (name, note) select 'name ' || n, 'note ' || n from generate_series(1, 120) n`),
  );
  const plan = testPlan({
    oldUrl: url,
    newUrl: url,
    oldSchema: "old_app",
    newSchema: "new_app",
    forward: [mapping("items", "items", { set: new Map([["title", "name"]]) })],
    reverse: [mapping("items", "items", { set: new Map([["name", "title"]]) })],
  });
  return { ...plan, canary: { steps: [0.5], stayMs: 0, fallback: true, fallbackAfterMs: 5_000 } };
}

/** Mirror and backfill of a plan, in this process, until the test ends. */
export function runWorkers(plan: Plan): void {
  const abort = new AbortController();
  const signal = abort.signal;
  const roles = [
    runMirrorRole({ plan, log: silentLog, signal }),
    runBackfillRole({ plan, log: silentLog, signal }),
  ];
  onTestFinished(async () => {
    abort.abort();
    await Promise.all(roles);
  });
}

/** Something that behaves towards the control store like a sidecar without traffic. */
export function runSidecar(plan: Plan, id: string): void {
  const store = openControlStore(plan, { role: "proxy", instance: id });
  const listener = listen(store, silentLog, "controller");
  const watcher = watchState(store, listener, silentLog);
  const beat = async () => {
    const { epoch, hold } = watcher.current ?? { epoch: 0, hold: undefined };
    const held = {
      attempt: hold?.attempt ?? null,
      writes: 0,
      failed: 0,
      durations_ms: [],
      max_ms: 0,
    };
    const stats = hold === undefined ? {} : { held };
    await beatSidecar(store, {
      id,
      epoch,
      holdAttempt: hold?.attempt,
      inFlightWrites: 0,
      listen: "127.0.0.1:1",
      stats,
    }).catch(() => {});
  };
  watcher.onChange(() => void beat());
  const timer = setInterval(() => void beat(), 200);
  onTestFinished(async () => {
    clearInterval(timer);
    await watcher.stop();
    await listener.close();
    await closeControlStore(store);
  });
}

/** A controller in this process; `wrap` puts something between it and the real engine. */
export async function startController(
  plan: Plan,
  options: {
    readonly instance?: string;
    readonly wrap?: (engine: Engine) => Engine;
    readonly log?: Log;
    readonly retryMs?: number;
  } = {},
): Promise<{ readonly controller: Controller; readonly store: ControlStore }> {
  const log = options.log ?? silentLog;
  const store = openControlStore(plan, { role: "control", instance: options.instance ?? "c1" });
  await install(store);
  const listener = listen(store, log, "controller");
  const engine = openRealEngine({ plan, store, listener, log });
  const controller = new Controller({
    plan,
    store,
    listener,
    log,
    engine: options.wrap?.(engine) ?? engine,
    ...(options.retryMs === undefined ? {} : { retryMs: options.retryMs }),
  });
  controller.start();
  onTestFinished(async () => {
    await controller.stop();
    await listener.close();
    await closeControlStore(store);
  });
  return { controller, store };
}

/** A command as the CLI sends it: to the controller that leads, or to one in this process. */
export async function ask(
  plan: Plan,
  kind: RequestKind,
  args: Readonly<Record<string, unknown>> = {},
): Promise<unknown> {
  const context = {
    plan,
    log: silentLog,
    signal: new AbortController().signal,
  } as unknown as Context;
  if (kind === "advance") await prepare(context);
  return request(context, kind, args);
}

/** Status as a command reads it that runs beside everything else. */
export async function statusOf(plan: Plan): Promise<Status> {
  const store = openControlStore(plan, { role: "status", instance: "s1" });
  const listener = listen(store, silentLog, "controller");
  try {
    const engine = openRealEngine({ plan, store, listener, log: silentLog });
    return await readStatus({ plan, store, engine, log: silentLog });
  } finally {
    await listener.close();
    await closeControlStore(store);
  }
}

/** What Crossfade has installed on a database for its side (the control store is another matter), by name; and the tables of the app with their schemas. */
export async function installedObjects(
  url: string,
): Promise<{ readonly ours: string[]; readonly triggers: string[]; readonly tables: string[] }> {
  return withClient(url, async (client) => {
    const names = async (sql: string) =>
      (await client.query<{ name: string }>(sql)).rows.map((row) => row.name);
    return {
      ours: await names(`select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'crossfade' and c.relkind in ('r', 'S') and c.relname ~ '^(state|guard|refused|log|tables|feed|position|confirmed|chunk_|quarantine)'
        union all select 'publication ' || pubname from pg_publication
        union all select 'slot ' || slot_name from pg_replication_slots where database = current_database() order by 1`),
      triggers: await names(
        `select tgname as name from pg_trigger where not tgisinternal and tgname <> 'append_only' order by 1`,
      ),
      tables:
        await names(`select n.nspname || '.' || c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema', 'crossfade') order by 1`),
    };
  });
}
