import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import { cancelAutovacuum, describeBlockers, tableBlockers } from "./lock-holders.ts";
import { guardedTables } from "./guard-tables.ts";
import type { GuardedTable, TableRef } from "./guard-tables.ts";
import { relation } from "./quote.ts";
import { sqlState } from "./session.ts";
import { changeFenced } from "./state.ts";
import type { Expected } from "./state.ts";

/** Writers of a table queue behind us for at most this long; then we step aside and try again. */
const LOCK_TIMEOUT_MS = 50;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 500;

export interface GuardChange {
  readonly side: Side;
  /** The mapped tables; their partitions and inheritance children are found here. */
  readonly tables: readonly TableRef[];
  /** The attempt it belongs to: nothing is changed once the side has seen a higher one. */
  readonly attempt: number;
  /** Gives up after this, naming who is in the way. */
  readonly timeoutMs: number;
  /** Ends the waiting earlier, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Creates the missing guard triggers of a side, disabled: they cost nothing until they are armed. */
export async function createGuards(
  client: pg.ClientBase,
  side: Side,
  tables: readonly TableRef[],
  timeoutMs = 30_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (const table of await guardedTables(client, side, tables)) {
    const statements = createStatements(side, table);
    if (statements.length === 0) continue;
    await patiently(client, { table: table.sql, what: "create the guard of", deadline }, () =>
      runShort(client, statements),
    );
  }
}

/**
 * Enables the guard on every mapped table, creating what is missing, table by table with short waits, so that a vacuum or
 * a long transaction delays this and never the app. When it returns, every write that began unguarded has ended.
 * Throws STALE if another attempt has begun, TIMEOUT naming the blockers if a table cannot be had in time.
 */
export async function arm(client: pg.ClientBase, change: GuardChange): Promise<void> {
  const deadline = performance.now() + change.timeoutMs;
  // Again from the start until nothing is left: a partition may have been added meanwhile.
  for (let round = 1; ; round += 1) {
    const guarded = await guardedTables(client, change.side, change.tables);
    const open = guarded.filter((table) => !table.armed);
    const first = open[0];
    if (first === undefined) return;
    if (round > 1 && performance.now() > deadline) {
      throw gaveUp("arm", first.sql, "its triggers are disabled again and again");
    }
    for (const table of open) {
      const statements = [
        ...createStatements(change.side, table),
        ...switchStatements(table, "enable always"),
      ];
      const expected = { attempt: change.attempt };
      await alterFenced(client, { change, table, statements, deadline, expected });
    }
  }
}

/**
 * Disables the guard of the authority: armed for weeks it would cost up to a quarter of saturated single-row writes.
 * Goes on only while its attempt is the newest, has ended, and the side's guard is open. Otherwise STALE.
 */
export async function disarm(client: pg.ClientBase, change: GuardChange): Promise<void> {
  const deadline = performance.now() + change.timeoutMs;
  const expected = { attempt: change.attempt, ended: true, guardOpen: true };
  for (const table of await guardedTables(client, change.side, change.tables)) {
    if (table.disarmed) continue;
    await alterFenced(client, {
      change,
      table,
      statements: switchStatements(table, "disable"),
      deadline,
      expected,
    });
  }
}

/** Whether the side refuses writes (where its guard is armed). */
export async function guardIsClosed(client: pg.ClientBase, side: Side): Promise<boolean> {
  const { rows } = await client.query<{ value: string }>(
    `select last_value::text as value from crossfade.guard_${side}`,
  );
  return rows[0]?.value !== "0";
}

/** How many writes this side has refused since it was installed, rolled back ones included. */
export async function refusedCount(client: pg.ClientBase, side: Side): Promise<number> {
  const { rows } = await client.query<{ value: string }>(
    `select (case when is_called then last_value else 0 end)::text as value from crossfade.refused_${side}`,
  );
  return Number(rows[0]?.value ?? 0);
}

/** Drops every guard trigger of a side, whatever table it is on now. */
export async function dropGuards(
  client: pg.ClientBase,
  side: Side,
  timeoutMs = 30_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  const { rows } = await client.query<{ schema: string; name: string; trigger: string }>(
    `select n.nspname as schema, c.relname as name, g.tgname as trigger
     from pg_trigger g join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
     where g.tgfoid = to_regprocedure($1) and not g.tgisinternal and g.tgparentid = 0
     order by 1, 2, 3`,
    [`crossfade.guard_${side}()`],
  );
  for (const { schema, name, trigger } of rows) {
    const table = relation(schema, name);
    const drop = `drop trigger if exists ${trigger === "crossfade_guard" ? "crossfade_guard" : "crossfade_guard_row"} on ${table}`;
    await patiently(client, { table, what: "remove the guard of", deadline }, () =>
      runShort(client, [drop]),
    );
  }
}

/**
 * The row trigger serves unmarked sessions only: marked ones write through the root, whose statement trigger checks the
 * marker once, and a check per row would slow every copy of a partitioned table.
 */
function createStatements(side: Side, table: GuardedTable): string[] {
  const call = `execute function crossfade.guard_${side}()`;
  const statements: string[] = [];
  if (!table.hasStatementTrigger) {
    statements.push(
      `create trigger crossfade_guard before insert or update or delete or truncate on ${table.sql} for each statement ${call}`,
      `alter table only ${table.sql} disable trigger crossfade_guard`,
    );
  }
  if (table.ownsRowTrigger && !table.hasRowTrigger) {
    statements.push(
      `create trigger crossfade_guard_row before insert or update or delete on ${table.sql} for each row
         when (coalesce(current_setting('crossfade.mirror', true), '') = '') ${call}`,
      `alter table ${table.sql} disable trigger crossfade_guard_row`,
    );
  }
  return statements;
}

function switchStatements(table: GuardedTable, to: "enable always" | "disable"): string[] {
  const statements = [`alter table only ${table.sql} ${to} trigger crossfade_guard`];
  // Without ONLY it reaches the clones on the partitions.
  if (table.ownsRowTrigger)
    statements.push(`alter table ${table.sql} ${to} trigger crossfade_guard_row`);
  return statements;
}

interface FencedAlter {
  readonly change: GuardChange;
  readonly table: GuardedTable;
  readonly statements: readonly string[];
  readonly deadline: number;
  readonly expected: Expected;
}

async function alterFenced(client: pg.ClientBase, alter: FencedAlter): Promise<void> {
  const { change, table, statements, deadline, expected } = alter;
  const what = expected.guardOpen === true ? "disarm" : "arm";
  await patiently(client, { table: table.sql, what, deadline, signal: change.signal }, () =>
    changeFenced(client, {
      side: change.side,
      expected,
      lock: "share",
      lockTimeoutMs: LOCK_TIMEOUT_MS,
      change: statements.join(";\n"),
    }),
  );
}

/** One message, so that a client that is paused in the middle holds no lock of the app's table. */
async function runShort(client: pg.ClientBase, statements: readonly string[]): Promise<void> {
  try {
    await client.query(
      ["begin", `set local lock_timeout = ${LOCK_TIMEOUT_MS}`, ...statements, "commit"].join(";\n"),
    );
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}

interface Patience {
  readonly table: string;
  readonly what: string;
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
}

/** Repeats `work` while the table is busy, with growing pauses in which the app goes on, until the deadline. */
async function patiently(
  client: pg.ClientBase,
  patience: Patience,
  work: () => Promise<void>,
): Promise<void> {
  let pause = FIRST_PAUSE_MS;
  for (;;) {
    patience.signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      const state = sqlState(error);
      // A partition that was dropped, or a trigger another process made just now: whoever calls looks again.
      if (state === "42P01" || state === "42710") return;
      // 55P03 lock_timeout, 40P01 deadlock.
      if (state !== "55P03" && state !== "40P01") throw error;
      const blockers = await tableBlockers(client, patience.table);
      if (performance.now() + pause > patience.deadline)
        throw gaveUp(patience.what, patience.table, describeBlockers(blockers));
      await cancelAutovacuum(client, blockers);
    }
    await sleep(pause);
    pause = Math.min(LONGEST_PAUSE_MS, pause * 2);
  }
}

function gaveUp(what: string, table: string, why: string): CrossfadeError {
  return new CrossfadeError("TIMEOUT", `could not ${what} ${table} in time: ${why}`, {
    hint: "Wait for it or end it, then try again. Nothing of the app was stopped.",
  });
}
