import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError } from "../config/errors.ts";
import { SIDES, directionFrom } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import { arm } from "../store/postgres/guard.ts";
import { guardDigestSql, guardedTables, unarmedSql } from "../store/postgres/guard-tables.ts";
import type { TableRef } from "../store/postgres/guard-tables.ts";
import { describeBlockers, lockBlockers } from "../store/postgres/lock-holders.ts";
import { guardLock, GUARD_PATIENCE_SQL } from "../store/postgres/locks.ts";
import { planRaise, raiseSequences } from "../store/postgres/sequences.ts";
import type { RaiseOptions, RaisePlan } from "../store/postgres/sequences.ts";
import {
  asStale,
  changeFenced,
  expectStateSql,
  requireNewest,
  writeAttemptSql,
  writeDirectionSql,
} from "../store/postgres/state.ts";
import type { Attempt } from "../store/postgres/state.ts";
import { prepareForBatch, runPrepared } from "../store/postgres/statement.ts";
import { writeFence } from "../store/postgres/trigger-feed.ts";
import { examine } from "./flip-decide.ts";
import { limitsOf, reached, readFacts } from "./flip-sessions.ts";
import type { StepRecorder } from "./flip-steps.ts";
import type { FlipDeps, FlipRequest } from "./flip-types.ts";

/** The sessions of one attempt, by what they are for. */
export interface AttemptSessions {
  /** On `from`: its transaction holds the guard's lock until the decision. */
  readonly authority: pg.Client;
  /** On `to`. */
  readonly other: pg.Client;
  /** A second one on `from`: writes the fence while the first keeps its transaction open. */
  readonly probe: pg.Client;
}

export interface AttemptContext {
  readonly deps: FlipDeps;
  readonly request: FlipRequest;
  readonly attempt: Attempt;
  /** The epoch before the attempt. */
  readonly epoch: number;
  readonly sessions: AttemptSessions;
  readonly steps: StepRecorder;
}

/** Checks that all is in order and writes the attempt into both state rows, before anything is armed. Throws REFUSED, STALE. */
export async function beginAttempt(
  deps: FlipDeps,
  request: FlipRequest,
  clients: Readonly<Record<Side, pg.Client>>,
): Promise<{ attempt: Attempt; epoch: number }> {
  const { kind, from, to } = request;
  const finding = examine(await readFacts(clients));
  if (finding.kind === "unfinished") {
    throw new CrossfadeError(
      "REFUSED",
      `an earlier ${finding.attempt.kind} has not come to its end`,
      {
        hint: "The controller that leads finishes it by itself; see `crossfade status`.",
      },
    );
  }
  if (finding.authority !== from) {
    throw new CrossfadeError(
      "REFUSED",
      `the ${finding.authority} side is the authority already, at epoch ${finding.epoch}`,
    );
  }
  const attempt = { number: finding.attempt + 1, kind, from, to, epoch: finding.epoch + 1 };
  for (const side of SIDES) {
    await changeFenced(clients[side], {
      side,
      expected: {
        attempt: finding.attempt,
        ended: true,
        epoch: finding.epoch,
        direction: directionFrom(from),
        guardOpen: side === from,
      },
      lockTimeoutMs: 2_000,
      change: writeAttemptSql(side, attempt),
    });
    if (side === "old") await reached(deps, "begin-half");
  }
  return { attempt, epoch: finding.epoch };
}

/** What the preparation found out for the time of the hold. */
export interface Prepared {
  readonly sequences: RaisePlan;
  readonly guard: PreparedGuard;
}

/** How the guard is taken. */
export interface PreparedGuard {
  /** How long its lock may be asked for. */
  readonly lockMs: number;
  /** Reads a digest of the catalogs, which is this as long as all tables of the authority are armed as they were. */
  readonly digestSql: string;
  readonly digest: string;
}

/** Throws when nobody wants the attempt any more. Only before its decision. */
export function mustGoOn({ deps }: AttemptContext): void {
  deps.calledOff?.throwIfAborted();
  deps.signal?.throwIfAborted();
}

/** All that can be done before the app has to wait for anything. */
export async function prepare(context: AttemptContext): Promise<Prepared> {
  const { deps, request, attempt, sessions, steps } = context;
  const deadline = performance.now() + limitsOf(deps).prepareMs;
  await steps.run("feeds", async () => {
    for (const side of SIDES) await deps.ensureFeed(side, deps.calledOff);
  });
  await steps.run("arm", async () => {
    const timeoutMs = Math.max(0, deadline - performance.now());
    const change = (side: Side) => ({
      side,
      tables: deps.sides[side].tables,
      attempt: attempt.number,
      timeoutMs,
      signal: deps.calledOff,
    });
    await arm(sessions.other, change(request.to));
    await arm(sessions.probe, change(request.from));
  });
  const sequences = await steps.run("sequences", async () => {
    const plan = await planRaise(raiseOptions(context));
    await raiseSequences({ ...raiseOptions(context), maxima: "all", plan });
    return plan;
  });
  mustGoOn(context);
  const guard = await warm(context, sequences);
  await steps.run("lag", async () => {
    await waitForWriters(context, deadline);
    await waitForMirror(context, deadline);
  });
  return { sequences, guard };
}

/**
 * Has each session do once what it will do while the app waits: the first time it compiles, plans and looks up in the
 * catalogs, which takes longer than all the rest. What is changed here is rolled back in the same message.
 */
async function warm(context: AttemptContext, plan: RaisePlan): Promise<PreparedGuard> {
  const { request, attempt, epoch, sessions } = context;
  const { from, to } = request;
  const rehearse = async (client: pg.Client, side: Side) => {
    const expected = {
      attempt: attempt.number,
      ended: false,
      direction: directionFrom(from),
      epoch,
      guardOpen: side === from,
    };
    try {
      await client.query(
        [
          "begin isolation level read committed",
          "set local lock_timeout = 2000",
          expectStateSql(side, expected),
          writeDirectionSql(side, directionFrom(to), attempt.epoch),
          "rollback",
        ].join(";\n"),
      );
    } catch (error) {
      await client.query("rollback").catch(() => {});
      throw asStale(error);
    }
  };
  await rehearse(sessions.authority, from);
  await rehearse(sessions.other, to);
  const armed = await digestOfArmed(context);
  await raiseSequences({ ...raiseOptions(context), maxima: "indexed", plan });
  const { rows } = await sessions.authority.query<{ ms: number }>(
    `select ${GUARD_PATIENCE_SQL} as ms`,
  );
  return { ...armed, lockMs: Number(rows[0]?.ms) };
}

/** The digest is read first, so that what changes between the two readings changes it. */
async function digestOfArmed(
  context: AttemptContext,
): Promise<Pick<PreparedGuard, "digestSql" | "digest">> {
  const { deps, request, sessions } = context;
  const { authority } = sessions;
  const found = await guardedTables(authority, request.from, deps.sides[request.from].tables);
  const digestSql = `execute ${await prepareForBatch(authority, guardDigestSql(found))}`;
  const { rows } = await authority.query<{ digest: string }>(digestSql);
  mustBeArmed(request.from, await unarmedTables(context));
  return { digestSql, digest: rows[0]?.digest ?? "" };
}

/** The tables of the authority without an armed guard. */
export async function unarmedTables({
  deps,
  request,
  sessions,
}: AttemptContext): Promise<readonly TableRef[]> {
  const { tables } = deps.sides[request.from];
  const { rows } = await sessions.authority.query<TableRef>(unarmedSql(request.from, tables));
  return rows;
}

export function mustBeArmed(side: Side, unarmed: readonly TableRef[]): void {
  if (unarmed.length === 0) return;
  const names = unarmed.map((table) => `${table.schema}.${table.name}`).join(", ");
  throw new CrossfadeError(
    "REFUSED",
    `tables of the ${side} side without an armed guard: ${names}`,
    {
      hint: "They were added, or their trigger was disabled, since the preparation. Try again.",
    },
  );
}

export function raiseOptions(
  context: AttemptContext,
): Pick<RaiseOptions, "from" | "to" | "sources"> {
  const { deps, request, sessions } = context;
  return {
    from: { client: sessions.probe, tables: deps.sides[request.from].tables },
    to: { client: sessions.other, tables: deps.sides[request.to].tables },
    sources: deps.columnSources?.(request.to) ?? [],
  };
}

/**
 * Waits for transactions that have written since the arming and stay open: with one of them the hold could only wait until its
 * budget is spent. A short one is no obstacle; the guard's lock waits for it.
 */
async function waitForWriters(context: AttemptContext, deadline: number): Promise<void> {
  const { request, attempt, sessions } = context;
  for (;;) {
    await requireNewest(sessions.probe, request.from, attempt.number);
    mustGoOn(context);
    const lock = guardLock(request.from);
    const open = await lockBlockers(sessions.probe, lock, request.budgetMs / 4);
    if (open.length === 0) return;
    if (performance.now() > deadline) {
      throw new CrossfadeError(
        "TIMEOUT",
        `transactions that write stay open on the ${request.from} side: ${describeBlockers(open)}`,
        { hint: "Wait for them or end them, then flip again. Nothing was held." },
      );
    }
    await sleep(100);
  }
}

/** Waits until the mirror says it is near, and proves it: a fence comes through in a part of the budget. */
async function waitForMirror(context: AttemptContext, deadline: number): Promise<void> {
  const { deps, request, attempt, sessions } = context;
  const { lagMs } = limitsOf(deps);
  for (;;) {
    // Another attempt's direction or epoch would make us wait for a fence that nobody passes.
    await requireNewest(sessions.probe, request.from, attempt.number);
    mustGoOn(context);
    const lag = await deps.lag();
    if (lag !== undefined && lag <= lagMs) {
      const fence = await writeFence(sessions.probe, request.from);
      if (await fencePassed(context, fence, request.budgetMs / 4)) return;
    }
    if (performance.now() > deadline) {
      const found =
        lag === undefined
          ? "its lag is unknown"
          : `it is ${Math.round(lag)} ms behind, or keys are deferred`;
      throw new CrossfadeError(
        "TIMEOUT",
        `the mirror is not near enough to hold writes for it: ${found}`,
        {
          hint: "See `crossfade status` for its lag and what it defers.",
        },
      );
    }
    await sleep(100);
  }
}

/**
 * Whether the mirror has passed a fence within `ms`. The position moves only when nothing before the fence is deferred.
 * It is asked for, not listened for: an answer takes a fraction of a millisecond, and a lost notification would cost the flip.
 */
export async function fencePassed(
  context: AttemptContext,
  fence: bigint,
  ms: number,
): Promise<boolean> {
  const { epoch, request, sessions } = context;
  const deadline = performance.now() + ms;
  for (;;) {
    mustGoOn(context);
    const rows = await runPrepared(
      sessions.other,
      "select 1 from crossfade.position where direction = $1 and epoch = $2::int and fence >= $3::bigint",
      [directionFrom(request.from), epoch, fence.toString()],
    );
    if (rows.length > 0) return true;
    if (performance.now() >= deadline) return false;
    await sleep(1);
  }
}
