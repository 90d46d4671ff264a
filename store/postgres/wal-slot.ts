import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import { directionFrom, type Side } from "../../config/words.ts";
import { type Lsn, parseLsn } from "./lsn.ts";
import { slotLock } from "./locks.ts";
import { run } from "./statement.ts";
import { findState } from "./state.ts";
import { inTransaction, sqlState } from "./session.ts";

/** A replication slot as its server sees it. */
export interface Slot {
  readonly name: string;
  /** What was confirmed as durable: nothing before it is sent again. */
  readonly confirmed: Lsn | undefined;
  /** Why the server cannot send what comes after it any more. */
  readonly lost: string | undefined;
  /** Bytes of WAL the server keeps for it. */
  readonly retained: number;
  readonly activePid: string | undefined;
}

/** Slots have one name space per server: the database's oid tells those of two migrations apart. */
const NAME = (side: Side) =>
  `'crossfade_${side}_' || (select oid from pg_database where datname = current_database())`;

/** The slot of a side's feed, or undefined if there is none. */
export async function findSlot(client: pg.ClientBase, side: Side): Promise<Slot | undefined> {
  const [row] = await run(
    client,
    `select slot_name, confirmed_flush_lsn::text, restart_lsn::text, wal_status,
       coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn), 0)::text, active_pid::text
     from pg_replication_slots where slot_name = ${NAME(side)}`,
  );
  if (row === undefined) return undefined;
  const [name, confirmed, restart, status, retained, activePid] = row;
  const gone = status === "lost" || restart == null;
  return {
    name: name ?? "",
    confirmed: confirmed == null ? undefined : parseLsn(confirmed),
    lost: gone ? "the server removed WAL that the slot still needed" : undefined,
    retained: Number(retained),
    activePid: activePid ?? undefined,
  };
}

/**
 * Makes the slot of a side if it is not there (or is lost) and nothing can have been missed: when the feed is first
 * installed, and while the side follows. A slot of the authority that is gone is a gap, which only the mirror closes.
 */
export async function ensureSlot(client: pg.Client, side: Side): Promise<void> {
  await withSlotLock(client, side, async () => {
    if (!(await hasSlot(client, side)) && !(await isSourceNow(client, side)))
      await makeSlot(client, side);
  });
}

/** The same for a side whose feed is installed; where it is removed meanwhile, nothing is made. */
export async function restoreSlot(
  client: pg.Client,
  side: Side,
  deadlineMs: number,
): Promise<void> {
  await withSlotLock(client, side, async () => {
    if ((await hasSlot(client, side)) || !(await isInstalled(client, side))) return;
    if (await isAuthority(client, side)) return;
    await makeSlot(client, side, deadlineMs);
    // A flip may have opened this side while the slot was made: then writes came before it, and the mirror must see a gap.
    if (await isAuthority(client, side)) await dropSlot(client, side);
  });
}

/** Makes a slot in place of what is there. Throws STALE where the feed has been removed meanwhile. */
export async function replaceSlot(client: pg.Client, side: Side): Promise<void> {
  await withSlotLock(client, side, async () => {
    if (!(await isInstalled(client, side)))
      throw new CrossfadeError("STALE", `the feed of the ${side} database was removed`);
    await makeSlot(client, side);
  });
}

/** Drops the slot, and forgets the feed first, so that nobody makes it again. */
export async function removeSlot(client: pg.ClientBase, side: Side): Promise<void> {
  await withSlotLock(client, side, async () => {
    if (await hasFeeds(client))
      await run(client, "delete from crossfade.feed where side = $1", [side]);
    await dropSlot(client, side);
  });
}

/** What is decided about a slot still holds when it is done: one at a time looks, makes and drops. */
async function withSlotLock(
  client: pg.ClientBase,
  side: Side,
  work: () => Promise<void>,
): Promise<void> {
  const { classId, objectId } = slotLock(side);
  await run(client, "select pg_advisory_lock($1::int, $2::int)::text", [classId, objectId]);
  const unlock = async () =>
    run(client, "select pg_advisory_unlock($1::int, $2::int)::text", [classId, objectId]);
  try {
    await work();
  } catch (error) {
    // If the connection is gone so is the lock; the first error is the one that matters.
    await unlock().catch(() => {});
    throw error;
  }
  await unlock();
}

/** Waits for the server's open writing transactions; TIMEOUT names them. */
async function makeSlot(client: pg.Client, side: Side, deadlineMs = 60_000): Promise<void> {
  await dropSlot(client, side);
  const [version] = await run(client, "select current_setting('server_version_num')");
  // From 17 on a standby can keep a copy of the slot, so that it is there after a failover.
  const failover = Number(version?.[0]) >= 170_000 ? ", false, false, true" : "";
  try {
    await inTransaction(client, async () => {
      await run(client, `set local statement_timeout = ${deadlineMs}`);
      await run(client, "set local lock_timeout = 0");
      await run(
        client,
        `select pg_create_logical_replication_slot(${NAME(side)}, 'pgoutput'${failover})`,
      );
    });
  } catch (error) {
    if (sqlState(error) !== "57014") throw error;
    throw new CrossfadeError(
      "TIMEOUT",
      `${side} database: a replication slot waits for every writing transaction of the server to end: ${await openWriters(client)}`,
      {
        hint: "End the transactions named, or wait for them, and run the command again.",
        cause: error,
      },
    );
  }
}

/** Ends whoever reads the slot and drops it. Idempotent. */
export async function dropSlot(client: pg.ClientBase, side: Side): Promise<void> {
  for (;;) {
    const slot = await findSlot(client, side);
    if (slot === undefined) return;
    if (slot.activePid !== undefined)
      await run(client, "select pg_terminate_backend($1::int)", [slot.activePid]);
    try {
      await run(client, "select pg_drop_replication_slot($1)", [slot.name]);
      return;
    } catch (error) {
      // 55006: its reader has not ended yet, or came back; 42704: somebody else dropped it.
      if (sqlState(error) !== "55006" && sqlState(error) !== "42704") throw error;
      await sleep(20);
    }
  }
}

async function hasSlot(client: pg.ClientBase, side: Side): Promise<boolean> {
  const slot = await findSlot(client, side);
  return slot !== undefined && slot.lost === undefined;
}

async function isSourceNow(client: pg.ClientBase, side: Side): Promise<boolean> {
  return (await isInstalled(client, side)) && (await isAuthority(client, side));
}

async function hasFeeds(client: pg.ClientBase): Promise<boolean> {
  const [there] = await run(client, "select to_regclass('crossfade.feed')::text");
  return there?.[0] != null;
}

async function isInstalled(client: pg.ClientBase, side: Side): Promise<boolean> {
  if (!(await hasFeeds(client))) return false;
  const [row] = await run(client, "select 1 from crossfade.feed where side = $1", [side]);
  return row !== undefined;
}

async function isAuthority(client: pg.ClientBase, side: Side): Promise<boolean> {
  const state = await findState(client, side);
  return state !== undefined && state.direction === directionFrom(side);
}

async function openWriters(client: pg.ClientBase): Promise<string> {
  const rows = await run(
    client,
    `select 'pid ' || pid || ' in database ' || datname || ' (' || state || ', open for ' || extract(epoch from clock_timestamp() - xact_start)::int || ' s)'
     from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
     union all select 'prepared transaction ' || gid || ' in database ' || database from pg_prepared_xacts limit 5`,
  );
  return rows.length === 0 ? "nobody is in the way now" : rows.map(([text]) => text).join("; ");
}
