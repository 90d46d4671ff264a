import { randomBytes } from "node:crypto";
import type pg from "pg";
import { CrossfadeError, messageOf } from "../../config/errors.ts";
import { describeDatabase } from "../../config/describe.ts";
import { INSTALL_LOCK } from "../postgres/locks.ts";
import { ident } from "../postgres/quote.ts";
import { inTransaction, sqlState } from "../postgres/session.ts";
import { CONTROL_TABLES, PASSING_SCHEMA, query, REACH_HINT, refuseOtherPlan } from "./open.ts";
import type { ControlStore } from "./open.ts";

/**
 * Creates the control store or brings it up to date; doing it again changes nothing. A control schema belongs to one
 * plan: a second plan in it is refused, because the ledgers carry no plan in their keys.
 */
export async function install(store: ControlStore): Promise<void> {
  const client = await connect(store);
  try {
    await inTransaction(client, async () => {
      await client.query("select pg_advisory_xact_lock($1, $2)", [
        INSTALL_LOCK.classId,
        INSTALL_LOCK.objectId,
      ]);
      await createSchema(store, client);
      await migrate(store, client);
      await createMigrationRow(store, client);
    });
  } finally {
    client.release();
  }
}

/** Removes the tables of the control store, and its schema if nothing else lives in it. */
export async function uninstall(store: ControlStore): Promise<void> {
  const client = await connect(store);
  try {
    await inTransaction(client, async () => {
      await client.query("select pg_advisory_xact_lock($1, $2)", [
        INSTALL_LOCK.classId,
        INSTALL_LOCK.objectId,
      ]);
      await client.query(
        `drop table if exists ${CONTROL_TABLES.map((name) => store.table(name)).join(", ")}`,
      );
      await client.query(`drop function if exists ${store.appendOnly}()`);
    });
    await dropEmptySchema(store, client);
  } finally {
    client.release();
  }
}

/** Whether the plan's control store is there. Throws DATABASE_UNFIT where another plan's is. */
export async function isInstalled(store: ControlStore): Promise<boolean> {
  const rows = await query<{ found: boolean }>(
    store,
    "select to_regclass($1) is not null as found",
    [store.table("migration")],
  );
  if (rows[0]?.found !== true) return false;
  const [row] = await query<{ plan: string }>(
    store,
    `select plan from ${store.table("migration")}`,
  );
  if (row !== undefined) refuseOtherPlan(store, row.plan);
  return true;
}

async function connect(store: ControlStore): Promise<pg.PoolClient> {
  try {
    return await store.pool.connect();
  } catch (error) {
    throw new CrossfadeError(
      "DATABASE_UNREACHABLE",
      `control database (${describeDatabase(store.url)}): ${messageOf(error)}`,
      { hint: REACH_HINT, cause: error },
    );
  }
}

/** `create schema if not exists` asks for the privilege even when the schema is there: look first. */
async function createSchema(store: ControlStore, client: pg.PoolClient): Promise<void> {
  if (store.schema === PASSING_SCHEMA) return;
  const { rowCount } = await client.query("select 1 from pg_namespace where nspname = $1", [
    store.schema,
  ]);
  if (rowCount === 0) await client.query(`create schema ${ident(store.schema)}`);
}

async function migrate(store: ControlStore, client: pg.PoolClient): Promise<void> {
  const versions = store.table("control_version");
  const { rows } = await client.query<{ found: boolean }>(
    "select to_regclass($1) is not null as found",
    [versions],
  );
  if (rows[0]?.found !== true)
    await client.query(
      `create table ${versions} (version int primary key, at timestamptz default now())`,
    );
  const { rows: last } = await client.query<{ version: number }>(
    `select coalesce(max(version), 0) as version from ${versions}`,
  );
  const done = last[0]?.version ?? 0;
  for (const [index, statements] of MIGRATIONS.entries()) {
    if (index < done) continue;
    await client.query(statements(store));
    await client.query(`insert into ${versions} (version) values ($1)`, [index + 1]);
  }
}

async function createMigrationRow(store: ControlStore, client: pg.PoolClient): Promise<void> {
  const migration = store.table("migration");
  const salt = randomBytes(16).toString("hex");
  await client.query(
    `insert into ${migration} (plan, salt) select $1, $2 where not exists (select from ${migration})`,
    [store.plan, salt],
  );
  const { rows } = await client.query<{ plan: string }>(`select plan from ${migration}`);
  for (const row of rows) refuseOtherPlan(store, row.plan);
}

async function dropEmptySchema(store: ControlStore, client: pg.PoolClient): Promise<void> {
  try {
    await client.query(`drop schema if exists ${ident(store.schema)}`);
  } catch (error) {
    // 2BP01: side objects or somebody else's still live in it; 42501: it was made for us by an administrator.
    if (!["2BP01", "42501"].includes(sqlState(error) ?? "")) throw error;
  }
}

/** Numbered; a released one is never edited. */
const MIGRATIONS: readonly ((store: ControlStore) => string)[] = [
  (store) => `
    create table ${store.table("migration")} (
      plan text primary key,
      phase text not null default 'off',
      authority text not null default 'old' check (authority in ('old', 'new')),
      epoch int not null default 1,
      reads_new double precision not null default 0 check (reads_new between 0 and 1),
      canary_step int not null default 0,
      salt text not null,
      hold_attempt int,
      hold_until timestamptz,
      last_attempt int not null default 0,
      paused_backfill boolean not null default false,
      paused_mirror boolean not null default false,
      throttle jsonb not null default '{}',
      gap text,
      no_way_back boolean not null default false,
      phase_since timestamptz not null default clock_timestamp(),
      version bigint not null default 1,
      check ((hold_attempt is null) = (hold_until is null)));
    create unique index on ${store.table("migration")} ((true));

    create table ${store.table("sidecar")} (
      id text primary key,
      epoch int not null,
      hold_attempt int,
      in_flight_writes int not null,
      listen text not null,
      stats jsonb not null,
      started timestamptz not null default clock_timestamp(),
      seen timestamptz not null default clock_timestamp());

    create table ${store.table("worker")} (
      id text primary key,
      role text not null,
      stats jsonb not null,
      started timestamptz not null default clock_timestamp(),
      seen timestamptz not null default clock_timestamp());

    create table ${store.table("command")} (
      id bigint generated always as identity primary key,
      kind text not null,
      args jsonb not null,
      by text not null,
      state text not null default 'queued' check (state in ('queued', 'running', 'done', 'failed')),
      result jsonb,
      error jsonb,
      created timestamptz not null default clock_timestamp(),
      started timestamptz,
      finished timestamptz);
    create index on ${store.table("command")} (id) where state in ('queued', 'running');

    create table ${store.table("event")} (
      id bigint generated always as identity primary key,
      at timestamptz not null default clock_timestamp(),
      kind text not null,
      by text not null,
      phase text not null,
      epoch int not null,
      detail jsonb not null);

    create table ${store.table("receipt")} (
      id bigint generated always as identity primary key,
      at timestamptz not null default clock_timestamp(),
      kind text not null,
      ok boolean not null,
      receipt jsonb not null);

    create table ${store.table("approval")} (
      id bigint generated always as identity primary key,
      at timestamptz not null default clock_timestamp(),
      phase text not null,
      name text not null,
      reason text,
      used timestamptz);
    create unique index on ${store.table("approval")} (phase, name) where used is null;

    create table ${store.table("chunk")} (
      direction text not null,
      tbl text not null,
      n int not null,
      ord int not null default 0,
      lo text[],
      hi text[],
      est_rows bigint not null,
      plan_version int not null,
      state text not null default 'pending' check (state in ('pending', 'claimed', 'done', 'failed')),
      worker text,
      lease_until timestamptz,
      attempts int not null default 0,
      rows bigint,
      ms double precision,
      error text,
      claimed_at timestamptz,
      finished_at timestamptz,
      primary key (direction, tbl, n));
    create index on ${store.table("chunk")} (direction, ord, tbl, n) where state in ('pending', 'claimed');

    create table ${store.table("verify_run")} (
      id bigint generated always as identity primary key,
      direction text not null,
      epoch int not null,
      state text not null default 'running' check (state in ('running', 'clean', 'dirty', 'failed')),
      by text not null,
      repair boolean not null,
      tables text[] not null,
      all_tables boolean not null,
      rows_compared bigint not null default 0,
      missing bigint not null default 0,
      extra bigint not null default 0,
      different bigint not null default 0,
      in_flight bigint not null default 0,
      repaired bigint not null default 0,
      error text,
      started timestamptz not null default clock_timestamp(),
      finished timestamptz);

    create table ${store.table("verify_chunk")} (
      run bigint not null references ${store.table("verify_run")} on delete cascade,
      tbl text not null,
      n int not null,
      rows bigint not null,
      missing bigint not null,
      extra bigint not null,
      different bigint not null,
      in_flight bigint not null,
      repaired bigint not null,
      examples jsonb not null,
      ms double precision not null,
      primary key (run, tbl, n));
  `,
  // The timeline is the audit log: it is only ever added to, whoever holds the connection.
  (store) => `
    create function ${store.appendOnly}() returns trigger language plpgsql as $$
    begin
      raise exception 'the timeline of Crossfade is append-only' using errcode = 'CF004';
    end $$;
    create trigger append_only before update or delete or truncate on ${store.table("event")}
      for each statement execute function ${store.appendOnly}();
    alter table ${store.table("command")} add column idempotency_key text;
    create unique index on ${store.table("command")} (idempotency_key) where idempotency_key is not null;
  `,
  // The pace of the copy is one row for all machines.
  (store) => `
    create table ${store.table("pace")} (
      one boolean primary key default true check (one),
      share double precision not null default 1 check (share > 0 and share <= 1),
      reason text,
      baseline jsonb not null default '{}',
      at timestamptz not null default clock_timestamp());
    insert into ${store.table("pace")} default values;

    alter table ${store.table("verify_run")} add column hot bigint not null default 0,
      add column planned jsonb not null default '{}', add column seen timestamptz not null default clock_timestamp(),
      add column sample double precision not null default 1;
    alter table ${store.table("verify_chunk")} add column hot bigint not null default 0;
    create index on ${store.table("chunk")} (direction, tbl) where error is not null;
  `,
  // Webhooks are told once, whoever leads; old events are nobody's news.
  (store) => `
    alter table ${store.table("migration")} add column notified bigint not null default 0;
    update ${store.table("migration")} set notified = (select coalesce(max(id), 0) from ${store.table("event")});
  `,
  // Maintenance mode; and whether what was written on new comes back from old as it is.
  (store) => `
    alter table ${store.table("migration")} add column maintenance text;
    alter table ${store.table("verify_run")} add column round_trip jsonb;
  `,
  // Which report of a gap is being made good, and whether its chunks are planned.
  (store) => `
    alter table ${store.table("migration")} add column gap_report int not null default 0,
      add column gap_planned int not null default 0;
    update ${store.table("migration")} set gap_report = 1 where gap is not null;
  `,
  // What charts show, for the whole migration; and how many rows each table had.
  (store) => `
    create table ${store.table("series")} (
      at bigint primary key,
      samples int not null default 1,
      lag_ms double precision,
      keys_per_s double precision,
      reads_new double precision,
      old_requests_per_s double precision,
      old_errors_per_s double precision,
      old_p50_ms double precision,
      old_p99_ms double precision,
      new_requests_per_s double precision,
      new_errors_per_s double precision,
      new_p50_ms double precision,
      new_p99_ms double precision);
    alter table ${store.table("verify_run")} add column row_counts jsonb;
  `,
  // What is dropped for the time of the copy is written down here first.
  (store) => `
    create table ${store.table("deferred_object")} (
      kind text not null check (kind in ('index', 'foreign key')),
      schema_name text not null,
      tbl text not null,
      name text not null,
      definition text not null,
      tablespace text not null,
      comment text,
      validated boolean not null,
      state text not null default 'dropped' check (state in ('dropped', 'building', 'unproven', 'built')),
      error text,
      at timestamptz not null default clock_timestamp(),
      primary key (schema_name, tbl, name));
  `,
  (store) => `
    alter table ${store.table("pace")} add column copying boolean not null default false, add column waiting jsonb;
  `,
];
