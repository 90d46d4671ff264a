import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import { sourceOf } from "../../config/words.ts";
import { disarm, guardIsClosed } from "./guard.ts";
import type { TableRef } from "./guard-tables.ts";
import { directionLock } from "./locks.ts";
import { raiseSequences } from "./sequences.ts";
import { sqlState } from "./session.ts";
import {
  changeFenced,
  endAttemptSql,
  readState,
  writeAttemptSql,
  writeDirectionSql,
} from "./state.ts";
import type { Attempt } from "./state.ts";

/**
 * Making old the authority without new, which is gone (DESIGN §2.7): everything here happens on old alone. The epoch and
 * the attempt are higher than any that new can have, so that new, should it come back open, is the one that is closed.
 */

const LOCK_MS = 2_000;
const TRY_MS = 30_000;
const DISARM_MS = 5_000;

/** Where new may have got to without old knowing: one attempt and one epoch further. */
const AHEAD = 2;

/** What old knows of how far it follows new. */
export interface FollowedUpTo {
  /** Of the log of new. */
  readonly fence: string | null;
  readonly lsn: string | null;
}

/** Throws REFUSED where old takes writes already. */
export async function refuseAuthority(client: pg.ClientBase): Promise<void> {
  const row = await readState(client, "old");
  if (!row.ended || sourceOf(row.direction) !== "old" || (await guardIsClosed(client, "old")))
    return;
  throw new CrossfadeError("REFUSED", `old is the authority already, at epoch ${row.epoch}`, {
    hint: "Nothing of new has to be given up: `crossfade rollback` goes to an earlier phase.",
  });
}

/** How far old follows new, as its own database says it. */
export async function readFollowedUpTo(client: pg.ClientBase): Promise<FollowedUpTo> {
  const { rows } = await client.query<{ fence: string; lsn: string | null }>(
    "select fence::text, lsn::text from crossfade.position where direction = 'reverse'",
  );
  return { fence: rows[0]?.fence ?? null, lsn: rows[0]?.lsn ?? null };
}

/** `known`: what the control store has seen; the numbers go beyond both. Returns the attempt that made old the authority. */
export async function takeBack(
  client: pg.ClientBase,
  known: { readonly epoch: number; readonly attempt: number },
): Promise<Attempt> {
  const seen = await readState(client, "old");
  const attempt: Attempt = {
    number: Math.max(seen.attempt, known.attempt) + AHEAD,
    kind: "rollback",
    from: "new",
    to: "old",
    epoch: Math.max(seen.epoch, seen.last?.epoch ?? 0, known.epoch) + AHEAD,
  };
  const tables = await guardedByUs(client);
  const change = async (sql: string, expected: number) =>
    patiently(() =>
      changeFenced(client, {
        side: "old",
        expected: { attempt: expected },
        lockTimeoutMs: LOCK_MS,
        change: sql,
      }),
    );
  await change(writeAttemptSql("old", attempt), seen.attempt);
  // Ids of rows that were mirrored must not be handed out again.
  const side = { client, tables };
  await raiseSequences({ from: side, to: side, maxima: "all" });
  // Exclusively: a sync that is still under way ends first, and later ones find another direction.
  const lock = directionLock("old");
  await change(
    `select pg_advisory_xact_lock(${lock.classId}, ${lock.objectId}); ${writeDirectionSql("old", "forward", attempt.epoch)}`,
    attempt.number,
  );
  await change("select setval('crossfade.guard_old', 0)", attempt.number);
  await change(endAttemptSql("old"), attempt.number);
  return attempt;
}

/** A guard that stays armed costs speed, not writes: the next recovery disarms it. */
export async function disarmOld(client: pg.ClientBase, { number }: Attempt): Promise<void> {
  const tables = await guardedByUs(client);
  await disarm(client, { side: "old", tables, attempt: number, timeoutMs: DISARM_MS });
}

/** The mapped tables as the database itself knows them: without new the plan cannot be resolved. */
async function guardedByUs(client: pg.ClientBase): Promise<TableRef[]> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `select distinct n.nspname as schema, c.relname as name
     from pg_trigger g join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
     where g.tgfoid = to_regproc('crossfade.guard_old')`,
  );
  return rows;
}

async function patiently(work: () => Promise<void>): Promise<void> {
  const deadline = performance.now() + TRY_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (sqlState(error) !== "55P03" || performance.now() > deadline) throw error;
    }
  }
}
