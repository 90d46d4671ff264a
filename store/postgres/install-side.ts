import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import { directionFrom, otherSide } from "../../config/words.ts";
import type { Side } from "../../config/words.ts";
import { dropGuards } from "./guard.ts";
import { INSTALL_LOCK, guardLock } from "./locks.ts";
import { literal } from "./quote.ts";
import { inTransaction, sqlState } from "./session.ts";
import { findState, stateSql } from "./state.ts";

export interface SideInstall {
  readonly side: Side;
  /** Name of the plan. One plan per database. */
  readonly plan: string;
}

/**
 * Creates what a flip and the guard need on a side: the state row, the guard's sequence and function, the counter of
 * refused writes. No trigger yet, so no app notices. Repeating it changes nothing and resets nothing.
 * Throws REFUSED if the database belongs to another plan.
 */
export async function installSide(client: pg.ClientBase, install: SideInstall): Promise<void> {
  await inTransaction(client, async () => {
    await client.query("select pg_advisory_xact_lock($1, $2)", [
      INSTALL_LOCK.classId,
      INSTALL_LOCK.objectId,
    ]);
    await createSchema(client);
    await client.query(`grant usage on schema crossfade to public; ${stateSql()}`);
    await refuseOtherPlan(client, install.plan);
    await client.query(
      `insert into crossfade.state (side, plan) values ($1, $2) on conflict do nothing`,
      [install.side, install.plan],
    );
    await client.query(guardSql(install.side));
  });
}

/** Removes what `installSide` and the guard made on a side, triggers first; leaves the schema if others use it. */
export async function uninstallSide(client: pg.ClientBase, side: Side): Promise<void> {
  await dropGuards(client, side);
  await inTransaction(client, async () => {
    await client.query("select pg_advisory_xact_lock($1, $2)", [
      INSTALL_LOCK.classId,
      INSTALL_LOCK.objectId,
    ]);
    await client.query(`drop function if exists crossfade.guard_${side}();
      drop sequence if exists crossfade.guard_${side}, crossfade.refused_${side}`);
    await dropStateRow(client, side);
  });
  await dropEmptySchema(client);
}

/** `create schema if not exists` asks for the privilege even when the schema is there: look first. */
async function createSchema(client: pg.ClientBase): Promise<void> {
  const { rowCount } = await client.query(
    "select 1 from pg_catalog.pg_namespace where nspname = 'crossfade'",
  );
  if (rowCount === 0) await client.query("create schema crossfade");
}

async function refuseOtherPlan(client: pg.ClientBase, plan: string): Promise<void> {
  const { rows } = await client.query<{ plan: string }>(
    "select plan from crossfade.state where plan <> $1 limit 1",
    [plan],
  );
  if (rows[0] === undefined) return;
  throw new CrossfadeError(
    "REFUSED",
    `the database belongs to another migration, the plan "${rows[0].plan}"`,
    {
      hint: `Finish that one, or remove it with \`crossfade clean\` and its plan file, before "${plan}" begins.`,
    },
  );
}

async function dropStateRow(client: pg.ClientBase, side: Side): Promise<void> {
  if (!(await isInstalled(client))) return;
  await client.query("delete from crossfade.state where side = $1", [side]);
  if ((await findState(client, otherSide(side))) !== undefined) return;
  await client.query(`drop function if exists crossfade.expect_state(text, int, boolean, text, int, boolean, boolean);
    drop table crossfade.state`);
}

async function isInstalled(client: pg.ClientBase): Promise<boolean> {
  const { rowCount } = await client.query(
    "select 1 where to_regclass('crossfade.state') is not null",
  );
  return rowCount === 1;
}

async function dropEmptySchema(client: pg.ClientBase): Promise<void> {
  try {
    await client.query("drop schema if exists crossfade");
  } catch (error) {
    // 2BP01: the other side, the feed or the control store still live in it; 42501: an administrator made it for us.
    if (!["2BP01", "42501"].includes(sqlState(error) ?? "")) throw error;
  }
}

/**
 * The guard of a side. Its state is a sequence and not a table: a REPEATABLE READ transaction whose snapshot predates the
 * close would read the old state from a table and write. The lock comes first, in a statement of its own, so that the
 * state is read only after a flip that holds the lock has decided.
 */
function guardSql(side: Side): string {
  const lock = guardLock(side);
  const other = otherSide(side);
  const allowed = directionFrom(other);
  return `
create sequence if not exists crossfade.guard_${side} minvalue 0 maxvalue 1 start with ${side === "old" ? 0 : 1};
create sequence if not exists crossfade.refused_${side};
grant select on sequence crossfade.guard_${side} to public;
grant usage on sequence crossfade.refused_${side} to public;
create or replace function crossfade.guard_${side}() returns trigger language plpgsql as $body$
declare
  marker text := pg_catalog.current_setting('crossfade.mirror', true);
begin
  if marker is null or marker = '' then
    perform pg_catalog.pg_advisory_xact_lock_shared(${lock.classId}, ${lock.objectId});
    if (select last_value from crossfade.guard_${side}) > 0 then
      perform pg_catalog.nextval('crossfade.refused_${side}');
      raise exception using errcode = 'CF001',
        message = pg_catalog.format('crossfade: %I.%I takes no writes here: the ${other} side is the authority', tg_table_schema, tg_table_name),
        hint = 'Nothing was written. Send this write through the sidecar, or to the ${other} database.';
    end if;
  elsif not exists (
    select from crossfade.state s
    where s.side = ${literal(side)} and s.direction = ${literal(allowed)} and s.direction || ':' || s.epoch = marker) then
    raise exception using errcode = 'CF002',
      message = pg_catalog.format('crossfade: %I.%I takes no mirrored writes of %s: that direction or epoch is over', tg_table_schema, tg_table_name, marker),
      hint = 'Normal for a mirror that was overtaken by a flip: it starts again with the current direction.';
  end if;
  if tg_level = 'STATEMENT' then return null; end if;
  if tg_op = 'DELETE' then return old; end if;
  return new;
end $body$`;
}
