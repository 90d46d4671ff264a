import type pg from "pg";
import { DIRECTIONS, type Side } from "../../config/words.ts";
import { confirmedSequence, logTable, turnSequence, turnTables } from "./follow-schema.ts";
import { withShortLock } from "./install-feed.ts";
import { publicationName } from "./install-wal-feed.ts";
import { INSTALL_LOCK } from "./locks.ts";
import { ident, literal, relation } from "./quote.ts";
import { run } from "./statement.ts";
import { removeSlot } from "./wal-slot.ts";

/**
 * Taking Crossfade off a side again. Nothing here reads the plan: what is installed says what to remove, so that it also
 * works after the plan, or the tables, have changed. Everything can be repeated.
 */

const PATIENCE_MS = 60_000;

/** Where the old tables go after `done`. */
export const ASIDE_SCHEMA = "crossfade_old";

/**
 * Removes the feed of a side, whichever kind it is: the slot before its publication (a slot that outlives it can never be
 * read again), the triggers before their functions and the log.
 */
export async function removeFeed(client: pg.Client, side: Side): Promise<void> {
  const patience = { deadline: Date.now() + PATIENCE_MS };
  await removeSlot(client, side);
  await withShortLock(
    client,
    [`drop publication if exists ${ident(publicationName(side))}`],
    patience,
  );
  for (const { table, trigger } of await feedTriggers(client, side)) {
    await withShortLock(client, [`drop trigger if exists ${ident(trigger)} on ${table}`], patience);
  }
  for (const name of await feedFunctions(client, side)) {
    await run(client, `drop function if exists ${relation("crossfade", name)}()`);
  }
  const log = logTable(side);
  // Writers that have logged hold a lock on the log until they end.
  await withShortLock(
    client,
    [
      `drop table if exists ${[log, ...turnTables(side)].join(", ")}`,
      `drop sequence if exists ${log}_id, ${turnSequence(side)}`,
    ],
    patience,
  );
  await forgetSide(client, side);
}

/** Removes what following needs in a database, once no side of it has a feed: positions, chunk boundaries, quarantine. */
export async function removeFollowTables(client: pg.Client): Promise<void> {
  const patience = { deadline: Date.now() + PATIENCE_MS };
  const chunks = await run(
    client,
    `select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'crossfade' and c.relkind = 'r' and c.relname ~ '^chunk_(old|new)_[0-9]+$'`,
  );
  const names = [
    "tables",
    "feed",
    "position",
    "chunk_plan",
    "shape",
    "quarantine",
    ...chunks.map(([name]) => name ?? ""),
  ];
  await withShortLock(
    client,
    [
      `drop table if exists ${names.map((name) => relation("crossfade", name)).join(", ")}`,
      `drop sequence if exists ${DIRECTIONS.map(confirmedSequence).join(", ")}`,
    ],
    patience,
  );
}

/**
 * Moves every table that a side's guard is on into another schema. Indexes, constraints, owned sequences and the guard go
 * with them. Returns how many were moved now.
 */
export async function moveAside(
  client: pg.Client,
  side: Side,
  schema = ASIDE_SCHEMA,
): Promise<number> {
  const tables = await run(
    client,
    `select distinct n.nspname, c.relname from pg_trigger g join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
     where g.tgfoid = to_regprocedure($1) and not g.tgisinternal and n.nspname <> $2 order by 1, 2`,
    [`crossfade.guard_${side}()`, schema],
  );
  if (tables.length === 0) return 0;
  await withShortLock(
    client,
    [
      `select pg_advisory_xact_lock(${INSTALL_LOCK.classId}, ${INSTALL_LOCK.objectId})`,
      createSchema(schema),
    ],
    { deadline: Date.now() },
  );
  for (const [from, name] of tables) {
    const move = `alter table if exists ${relation(from ?? "", name ?? "")} set schema ${ident(schema)}`;
    await withShortLock(client, [move], { deadline: Date.now() + PATIENCE_MS });
  }
  return tables.length;
}

/** `create schema if not exists` asks for the privilege even when the schema is there: look first. */
function createSchema(schema: string): string {
  return `do $do$ begin
    if not exists (select from pg_namespace where nspname = ${literal(schema)}) then
      execute ${literal(`create schema ${ident(schema)}`)};
    end if;
  end $do$`;
}

async function feedTriggers(
  client: pg.Client,
  side: Side,
): Promise<{ table: string; trigger: string }[]> {
  const rows = await run(
    client,
    `select n.nspname, c.relname, g.tgname from pg_trigger g
     join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
     join pg_proc p on p.oid = g.tgfoid join pg_namespace pn on pn.oid = p.pronamespace
     where pn.nspname = 'crossfade' and p.proname ~ $1 and not g.tgisinternal and g.tgparentid = 0
     order by 1, 2, 3`,
    [functionPattern(side)],
  );
  return rows.map(([schema, name, trigger]) => ({
    table: relation(schema ?? "", name ?? ""),
    trigger: trigger ?? "",
  }));
}

async function feedFunctions(client: pg.Client, side: Side): Promise<string[]> {
  const rows = await run(
    client,
    `select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'crossfade' and p.proname ~ $1`,
    [functionPattern(side)],
  );
  return rows.map(([name]) => name ?? "");
}

function functionPattern(side: Side): string {
  return `^log_${side}_[0-9]+$`;
}

async function forgetSide(client: pg.Client, side: Side): Promise<void> {
  for (const table of ["feed", "tables", "shape"]) {
    const [found] = await run(client, "select to_regclass($1)::text", [`crossfade.${table}`]);
    if (found?.[0] != null)
      await run(client, `delete from crossfade.${table} where side = $1`, [side]);
  }
}
