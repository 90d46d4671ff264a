import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Plan } from "../../config/plan-types.ts";
import type { Side } from "../../config/words.ts";
import { installFollowTables, logTable, turnSequence, turnTables } from "./follow-schema.ts";
import { logFunctionSql, logTriggerSql } from "./log-trigger.ts";
import type { LoggedTable } from "./mapping.ts";
import { sqlState } from "./session.ts";
import { changedShapes } from "./shape-watch.ts";
import { run } from "./statement.ts";

/** A lock is asked for this long, then given up and asked for again, so that the app never queues behind us. */
const LOCK_TIMEOUT_MS = 50;
const DEADLINE_MS = 60_000;

/** How long the tables' locks are asked for. */
export interface LockPatience {
  /** By `Date.now()`. */
  readonly deadline: number;
  /** Ends the asking earlier, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

export function lockPatience(signal: AbortSignal | undefined): LockPatience {
  return { deadline: Date.now() + DEADLINE_MS, signal };
}

/**
 * Installs the trigger feed of a side: the log, and a trigger on every logged table. Idempotent. Waits for writers of
 * the tables for a minute at most; then throws TIMEOUT naming who is in the way. Tables that DDL changed meanwhile are left
 * as they are. `signal` stops it where it would wait: calling again goes on from there.
 */
export async function installFeed(
  client: pg.Client,
  side: Side,
  tables: readonly LoggedTable[],
  signal?: AbortSignal,
): Promise<void> {
  await installFollowTables(client);
  await installLog(client, side);
  await installTurns(client, side);
  const patience = lockPatience(signal);
  const schema = tables[0]?.table.schema ?? "public";
  const changed = await changedShapes({ client, side, schema, role: "source" });
  for (const logged of tables) {
    // What it missed meanwhile has to be copied: `resume` sees to that, and a trigger that is back would hide it.
    if (changed.some(({ table }) => table === logged.name)) continue;
    await client.query(logFunctionSql(side, logged));
    for (const statements of logTriggerSql(side, logged))
      await withShortLock(client, statements, patience);
    await rememberTable(client, side, logged);
  }
  await rememberFeed(client, side, "trigger");
}

const VACUUMED =
  "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.5";

/** The log of a side: keys of changed rows (trigger feed), fences. */
export async function installLog(client: pg.Client, side: Side): Promise<void> {
  const log = logTable(side);
  await client.query(`
    create sequence if not exists ${log}_id cache 1;
    create table if not exists ${log} (
      id bigint primary key default nextval('${log}_id'), tbl int not null, op "char" not null, vals text[],
      at timestamptz not null default clock_timestamp())
      with (${VACUUMED});
    grant usage on schema crossfade to public;
    grant insert on ${log} to public;
    grant usage on sequence ${log}_id to public`);
}

/** Parts of the log, so that one statement reads all; their ids are drawn from one sequence. */
async function installTurns(client: pg.Client, side: Side): Promise<void> {
  const turns = turnSequence(side);
  await client.query(`
    ${turnTables(side)
      .map(
        (table) =>
          `create table if not exists ${table} (primary key (id)) inherits (${logTable(side)}) with (${VACUUMED});
           grant insert on ${table} to public;`,
      )
      .join("\n")}
    create sequence if not exists ${turns} minvalue 0 cache 1;
    select setval('${turns}', 0) where not (select is_called from ${turns});
    grant usage on sequence ${turns} to public`);
}

/** What the numbers in the log mean, for whoever looks at it. */
export async function rememberTable(
  client: pg.Client,
  side: Side,
  logged: LoggedTable,
): Promise<void> {
  await run(
    client,
    `insert into crossfade.tables (side, number, name, columns) values ($1, $2, $3, $4)
     on conflict (side, number) do update set name = excluded.name, columns = excluded.columns`,
    [side, logged.number, logged.name, logged.columns.map((column) => column.name)],
  );
}

/** From here on the feed misses nothing, once the transactions that run now have ended. */
export async function rememberFeed(
  client: pg.Client,
  side: Side,
  kind: Plan["feed"],
): Promise<void> {
  await run(
    client,
    `insert into crossfade.feed (side, kind, barrier) values ($1, $2, pg_snapshot_xmax(pg_current_snapshot())::text) on conflict (side) do nothing`,
    [side, kind],
  );
}

/** Throws REFUSED if the feed of a side is of the other kind: the plan was edited while the migration runs. */
export async function requireFeedKind(
  client: pg.ClientBase,
  side: Side,
  kind: Plan["feed"],
): Promise<void> {
  const [there] = await run(client, "select to_regclass('crossfade.feed')::text");
  if (there?.[0] == null) return;
  const [feed] = await run(client, "select kind from crossfade.feed where side = $1", [side]);
  if (feed === undefined || feed[0] === kind) return;
  throw new CrossfadeError(
    "REFUSED",
    `the plan says feed: ${kind}, but the ${side} database was installed with feed: ${feed[0]}`,
    {
      hint: `A feed cannot be changed under way: set feed: ${feed[0]} again, or go back to off (\`crossfade rollback --to off\`) first.`,
    },
  );
}

/**
 * True once every transaction that was running when the feed was installed has ended: from then on the feed and what
 * can be read together miss nothing.
 */
export async function feedIsComplete(client: pg.ClientBase, side: Side): Promise<boolean> {
  const [row] = await run(
    client,
    `select (pg_snapshot_xmin(pg_current_snapshot()) >= barrier::xid8)::text from crossfade.feed where side = $1`,
    [side],
  );
  return row?.[0] === "true";
}

/** Runs statements in one transaction with a short lock_timeout, again and again as long as the patience lasts. */
export async function withShortLock(
  client: pg.Client,
  statements: readonly string[],
  { deadline, signal }: LockPatience,
): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    signal?.throwIfAborted();
    try {
      await client.query("begin");
      await client.query(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`);
      for (const statement of statements) await client.query(statement);
      await client.query("commit");
      return;
    } catch (error) {
      await client.query("rollback");
      if (sqlState(error) !== "55P03" && sqlState(error) !== "40P01") throw error;
      if (Date.now() > deadline) {
        throw new CrossfadeError(
          "TIMEOUT",
          `could not lock a table for ${statements[0]?.split("\n")[0] ?? ""}: ${await oldestLockHolders(client)}`,
          {
            hint: "End the transactions named, or wait for them, and run the command again.",
            cause: error,
          },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, Math.min(500, 20 * 2 ** attempt)));
    }
  }
}

/** The oldest transactions of this database that hold locks on tables, as text for a message. */
async function oldestLockHolders(client: pg.ClientBase): Promise<string> {
  const rows = await run(
    client,
    `select a.pid::text, a.state, extract(epoch from clock_timestamp() - a.xact_start)::int::text, left(a.query, 120)
     from pg_stat_activity a
     where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null
       and exists (select from pg_locks l join pg_class c on c.oid = l.relation where l.pid = a.pid and l.granted
                   and c.relnamespace <> 'pg_catalog'::regnamespace)
     order by a.xact_start limit 5`,
  );
  if (rows.length === 0) return "nobody holds one now; it was held only for moments";
  return rows
    .map(
      ([pid, state, age, query]) =>
        `pid ${pid} (${state}, transaction open for ${age} s: ${query})`,
    )
    .join("; ");
}
