import type pg from "pg";
import type { Direction, Side } from "../../config/words.ts";
import { INSTALL_LOCK } from "./locks.ts";
import { literal } from "./quote.ts";

/** Objects that following needs on each side; both sets live together when the sides share a database. */
const SHARED_TABLES = `
create schema if not exists crossfade;
create table if not exists crossfade.tables (
  side text not null, number int not null, name text not null, columns text[] not null, primary key (side, number));
create table if not exists crossfade.feed (
  side text primary key, kind text not null, barrier text not null, epoch int, created_at timestamptz not null default clock_timestamp());
create table if not exists crossfade.position (
  direction text primary key, epoch int not null, fence bigint not null, read bigint not null, pass bigint not null,
  source_system text, source_timeline text, lsn pg_lsn, lsn_epoch int);
create table if not exists crossfade.shape (
  side text not null, name text not null, shape text not null, primary key (side, name));
create sequence if not exists crossfade.confirmed_forward minvalue 0 start with 0;
create sequence if not exists crossfade.confirmed_reverse minvalue 0 start with 0;
create table if not exists crossfade.chunk_plan (
  direction text not null, tbl int not null, version int not null, primary key (direction, tbl));
create table if not exists crossfade.quarantine (
  id bigint generated always as identity primary key,
  direction text not null, mapping text not null, source_table text not null, key text[] not null,
  reason text not null, sqlstate text, state text not null check (state in ('deferred', 'quarantined', 'accepted')),
  at timestamptz not null default clock_timestamp(), attempts int not null default 1,
  accepted_by text, accepted_reason text, row_digest text,
  unique (direction, mapping, key));
`;

/** Creates the tables above. Idempotent; safe when two processes do it at once. */
export async function installFollowTables(client: pg.ClientBase): Promise<void> {
  await client.query("begin");
  try {
    // `create … if not exists` races with itself; one installer at a time.
    await client.query("select pg_advisory_xact_lock($1::int, $2::int)", [
      INSTALL_LOCK.classId,
      INSTALL_LOCK.objectId,
    ]);
    await client.query(SHARED_TABLES);
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}

/** The row that holds the position of a direction, on its target. An existing one is kept. */
export async function initPosition(
  client: pg.ClientBase,
  direction: Direction,
  epoch: number,
): Promise<void> {
  await client.query(
    `insert into crossfade.position (direction, epoch, fence, read, pass) values (${literal(direction)}, ${epoch}, 0, 0, 0)
     on conflict (direction) do nothing`,
  );
}

/**
 * On the source: the last pass that was confirmed. Not a row: each of its versions stays while an old snapshot is open, and every
 * pass would walk over those of all passes since.
 */
export function confirmedSequence(direction: Direction): string {
  return `crossfade.confirmed_${direction}`;
}

/** The log of a side as a whole. By itself (`only`) it holds the fences, and with the wal feed nothing else. */
export function logTable(side: Side): string {
  return `crossfade.log_${side}`;
}

/** The trigger feed's rows go to these in turns: one that was emptied is truncated while another is written to. */
export function turnTables(side: Side): readonly string[] {
  return [0, 1, 2].map((turn) => `${logTable(side)}_r${turn}`);
}

/** Its value says whose turn it is: read at once by every transaction, whatever its snapshot. */
export function turnSequence(side: Side): string {
  return `${logTable(side)}_turn`;
}

/** NOTIFY channel that wakes the mirror when a fence is written to a side's log. */
export function logChannel(side: Side): string {
  return `crossfade_log_${side}`;
}
