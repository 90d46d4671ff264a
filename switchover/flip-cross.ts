import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError } from "../config/errors.ts";
import { directionFrom } from "../config/words.ts";
import { describeBlockers, lockBlockers } from "../store/postgres/lock-holders.ts";
import { directionLock, guardLock } from "../store/postgres/locks.ts";
import { raiseSequences } from "../store/postgres/sequences.ts";
import type { RaisePlan } from "../store/postgres/sequences.ts";
import { sqlState } from "../store/postgres/session.ts";
import {
  asStale,
  expectStateSql,
  requireNewest,
  writeDirectionSql,
} from "../store/postgres/state.ts";
import { writeFence } from "../store/postgres/trigger-feed.ts";
import { within } from "./flip-budget.ts";
import type { Budget } from "./flip-budget.ts";
import { fencePassed, mustBeArmed, mustGoOn, raiseOptions, unarmedTables } from "./flip-prepare.ts";
import type { AttemptContext, PreparedGuard } from "./flip-prepare.ts";
import { isBusy } from "./flip-sessions.ts";

/** How far an attempt came, for whoever has to clean up after it. */
export interface Progress {
  /** Sidecars may be holding. */
  held: boolean;
  /** `setval` was sent: from here on only a recovery says what happened. */
  closing: boolean;
}

/** Asks every sidecar to hold. Refuses to begin if another attempt has taken over meanwhile. */
export async function hold(
  context: AttemptContext,
  budget: Budget,
  progress: Progress,
): Promise<void> {
  const { deps, request, attempt, sessions } = context;
  await requireNewest(sessions.authority, request.from, attempt.number);
  progress.held = true;
  const { missing } = await deps.fleet.hold({
    attempt: attempt.number,
    leaseMs: budget.leaseMs,
    waitMs: budget.left("the hold"),
  });
  if (missing.length === 0) return;
  throw new CrossfadeError(
    "TIMEOUT",
    `not every sidecar held its writes in time: ${missing.join(", ")}`,
    {
      hint: "A write that takes longer than the hold's budget was in flight, or the sidecar does not answer.",
    },
  );
}

/**
 * Opens the one transaction on the authority and leaves it open: state row, guard lock, all tables armed. From here until
 * it ends, writers that bypass the sidecars wait, and get no error.
 */
export async function takeGuard(
  context: AttemptContext,
  budget: Budget,
  guard: PreparedGuard,
): Promise<void> {
  const { request, attempt, epoch } = context;
  const expected = {
    attempt: attempt.number,
    ended: false,
    direction: directionFrom(request.from),
    epoch,
    guardOpen: true,
  };
  const begin = [
    beginSql(budget.left("the guard's lock"), guard.lockMs),
    expectStateSql(request.from, expected),
    "savepoint guard",
  ];
  const digest = await lockGuard(context, budget, { begin, guard });
  if (digest !== guard.digest) mustBeArmed(request.from, await unarmedTables(context));
}

interface GuardLock {
  /** What opens the transaction, up to `savepoint guard`; it travels with the first try. */
  readonly begin: readonly string[];
  readonly guard: PreparedGuard;
}

/**
 * Tries for the guard's lock again and again; between the tries those who queued behind us go on. Returns the digest of what is
 * armed, read under the lock. All of it is one message: every further one is a way to the server and back for all who wait.
 */
async function lockGuard(
  context: AttemptContext,
  budget: Budget,
  { begin, guard }: GuardLock,
): Promise<string | undefined> {
  const { request, sessions } = context;
  const client = sessions.authority;
  const lock = guardLock(request.from);
  let first = begin;
  for (let pause = 5; ; pause = Math.min(50, pause * 2)) {
    const left = budget.left("the guard's lock");
    const tries = [
      `set local lock_timeout = ${Math.min(guard.lockMs, left)}`,
      `select pg_advisory_xact_lock(${lock.classId}, ${lock.objectId})`,
      // What is left is less now; a paused controller must have lost its locks when the budget is over.
      timeoutSinceSql(left),
      guard.digestSql,
    ];
    try {
      const results = await client.query([...first, ...tries].join(";\n"));
      return (results as unknown as readonly { rows: { digest: string }[] }[]).at(-1)?.rows[0]
        ?.digest;
    } catch (error) {
      // 57014: the statement_timeout, which is what is left of the budget.
      if (!isBusy(error) && sqlState(error) !== "57014") throw asStale(error);
      // Without the savepoint it was the state row that could not be had: somebody recovers.
      await client.query("rollback to savepoint guard").catch(() => {
        throw error;
      });
    }
    first = [];
    const holders = await lockBlockers(sessions.probe, lock);
    await sleep(pause);
    mustGoOn(context);
    budgetOrBlockers(budget, holders);
  }
}

function budgetOrBlockers(budget: Budget, holders: Parameters<typeof describeBlockers>[0]): void {
  try {
    budget.left("the guard's lock");
  } catch (cause) {
    throw new CrossfadeError(
      "TIMEOUT",
      `transactions that write were open for longer than the hold's budget: ${describeBlockers(holders)}`,
      {
        hint: "Wait for them or end them, then flip again. Nothing moved.",
        cause,
      },
    );
  }
}

/** Everything written to the authority so far is on the other side when this returns. */
export async function passFence(context: AttemptContext, budget: Budget): Promise<void> {
  const fence = await writeFence(context.sessions.probe, context.request.from);
  if (await fencePassed(context, fence, budget.left("the fence"))) return;
  throw new CrossfadeError(
    "TIMEOUT",
    "the mirror did not pass the fence within the hold's budget",
    {
      hint: "See `crossfade status`: its lag, and whether it defers keys.",
    },
  );
}

export async function raiseAgain(context: AttemptContext, plan: RaisePlan): Promise<void> {
  await raiseSequences({ ...raiseOptions(context), maxima: "indexed", plan });
}

/** Opens the transaction on the other side, with the new direction in it, and leaves it uncommitted. */
export async function switchOther(context: AttemptContext, budget: Budget): Promise<void> {
  const { request, attempt, epoch, sessions } = context;
  const { from, to } = request;
  const left = budget.left("the other side's switch");
  const lock = directionLock(to);
  const expected = {
    attempt: attempt.number,
    ended: false,
    direction: directionFrom(from),
    epoch,
    guardOpen: false,
  };
  try {
    await sessions.other.query(
      [
        beginSql(left, left),
        expectStateSql(to, expected),
        // Waits for the syncs that run; those that come later wait for us, and then find their direction is over.
        `select pg_advisory_xact_lock(${lock.classId}, ${lock.objectId})`,
        writeDirectionSql(to, directionFrom(to), attempt.epoch),
      ].join(";\n"),
    );
  } catch (error) {
    throw asStale(error);
  }
}

/** Direction, epoch and the closed guard, in the authority's transaction. The commit that follows is the decision. */
export async function closeGuard(
  context: AttemptContext,
  budget: Budget,
  progress: Progress,
): Promise<void> {
  const { request, attempt, sessions } = context;
  const left = budget.left("the decision");
  const statements = [
    writeDirectionSql(request.from, directionFrom(request.to), attempt.epoch),
    `select setval('crossfade.guard_${request.from}', 1)`,
  ];
  // Its transaction must still be there: better to find out now than when no side takes writes.
  await within(left, `the ${request.to} side`, sessions.other.query("select 1"));
  progress.closing = true;
  await within(
    left,
    `closing the guard of the ${request.from} side`,
    sessions.authority.query(statements.join(";\n")),
  );
}

/** Commits; a COMMIT of a transaction that had failed answers ROLLBACK, without an error. */
export async function commit(client: pg.Client, what: string): Promise<void> {
  const result = await within(COMMIT_MS, what, client.query("commit"));
  if (result.command !== "COMMIT")
    throw new CrossfadeError("FAILED", `${what}: the transaction was rolled back`);
}

const COMMIT_MS = 15_000;

function beginSql(leftMs: number, lockMs: number): string {
  return [
    "begin isolation level read committed",
    "set local synchronous_commit = on",
    `set local lock_timeout = ${lockMs}`,
    timeoutSql(leftMs),
  ].join(";\n");
}

/** The same inside a message that has waited for a lock: what it waited is taken off. */
function timeoutSinceSql(leftMs: number): string {
  return `select set_config('statement_timeout', cf.ms, true), set_config('idle_in_transaction_session_timeout', cf.ms, true)
    from (select greatest(1, ${leftMs} - extract(epoch from clock_timestamp() - statement_timestamp()) * 1000)::int::text as ms) cf`;
}

function timeoutSql(leftMs: number): string {
  return `set local statement_timeout = ${leftMs};\nset local idle_in_transaction_session_timeout = ${leftMs}`;
}
