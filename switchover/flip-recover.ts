import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError } from "../config/errors.ts";
import { SIDES, directionFrom, otherSide } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import { arm } from "../store/postgres/guard.ts";
import { voidPositionSql } from "../store/postgres/identity.ts";
import { directionLock, guardLock, GUARD_PATIENCE_SQL } from "../store/postgres/locks.ts";
import { changeFenced, writeAttemptSql, writeDirectionSql } from "../store/postgres/state.ts";
import type { Attempt } from "../store/postgres/state.ts";
import { examine, isDecided } from "./flip-decide.ts";
import type { Facts } from "./flip-decide.ts";
import { armFollower, endAttempt, finish, release, tidy } from "./flip-finish.ts";
import {
  KeptSessions,
  closeBoth,
  isBusy,
  onSide,
  openBoth,
  reached,
  readFacts,
  untilDone,
} from "./flip-sessions.ts";
import type { FinishDeps, SideDeps } from "./flip-sessions.ts";
import { StepRecorder } from "./flip-steps.ts";
import type { FlipDeps, Recovery } from "./flip-types.ts";

/** One wait for a state row that an interrupted flip's transaction holds; that transaction's time-outs end it. */
const RAISE_LOCK_MS = 1_000;
const RAISE_MS = 60_000;
const CLOSE_LOCK_MS = 2_000;
const ARM_MS = 30_000;

/** The numbers a process has taken for one try; a recovery that is repeated adds to them. */
export type Claim = Set<number>;

export interface RecoverOptions {
  /** Only if one of these attempts is still the newest: a controller that cleans up after itself. Else STALE. */
  readonly claim?: Claim;
  /** Where the steps are noted; by default in a list of their own. */
  readonly steps?: StepRecorder;
}

/**
 * Brings an interrupted attempt, or a side that came back from a failover or a restore, to the one state that follows from what
 * is committed: undone, or gone forward. Any process may call it at any time; doing it again changes nothing. Where all is in
 * order it only sees to the triggers: the follower's armed, the authority's off.
 * Throws, with nothing done, while one of the databases cannot be written; STALE if another process took over.
 */
export async function recover(deps: FlipDeps, options: RecoverOptions = {}): Promise<Recovery> {
  const steps = options.steps ?? new StepRecorder(deps);
  const clients = await openBoth(deps);
  const kept = new KeptSessions(clients);
  try {
    const found = await raise(deps, { clients, steps, claim: options.claim });
    return await resolve({ ...deps, kept }, found, steps);
  } finally {
    await kept.close();
  }
}

async function resolve(deps: FinishDeps, found: Found, steps: StepRecorder): Promise<Recovery> {
  if (found.kind === "settled") {
    await armFollower(deps, found.attempt, otherSide(found.authority));
    await tidy(deps, found.attempt, found.authority);
    return {
      outcome: "settled",
      authority: found.authority,
      epoch: found.epoch,
      attempt: undefined,
    };
  }
  const { attempt, facts } = found;
  return isDecided(attempt, facts)
    ? goForward(deps, { attempt, facts, steps })
    : undo(deps, { attempt, facts, steps });
}

type Found =
  | {
      readonly kind: "settled";
      readonly authority: Side;
      readonly epoch: number;
      readonly attempt: number;
    }
  | { readonly kind: "raised"; readonly attempt: Attempt; readonly facts: Facts };

interface Raise {
  readonly clients: Readonly<Record<Side, pg.Client>>;
  readonly steps: StepRecorder;
  readonly claim: Claim | undefined;
}

/**
 * Commits a higher attempt on both sides, then reads. The commits wait for transactions that are still open, since those
 * hold the state rows; they fence off everybody who works for a lower attempt; and being flushed they make durable what
 * a `setval` before them did, so that what is read now stays true.
 */
async function raise(deps: FlipDeps, { clients, steps, claim }: Raise): Promise<Found> {
  const facts = await readFacts(clients);
  const newest = Math.max(facts.old.row.attempt, facts.new.row.attempt);
  if (claim !== undefined && !claim.has(newest)) {
    throw new CrossfadeError(
      "STALE",
      `attempt ${newest} has taken over from ${Math.max(...claim)}`,
    );
  }
  const finding = examine(facts);
  if (finding.kind === "settled") return finding;
  const { attempt } = finding;
  const which = `flip: attempt ${newest} (${attempt.kind} from ${attempt.from} to ${attempt.to})`;
  // Every drill ends this way: only an attempt of somebody else is news.
  if (claim === undefined)
    deps.log.warn({ attempt }, `${which} was interrupted; recovering as ${attempt.number}`);
  else deps.log.info({ attempt }, `${which} is ended as ${attempt.number}`);
  claim?.add(attempt.number);
  await steps.run("raise", async () => {
    for (const side of SIDES) {
      const { row } = facts[side];
      await raiseSide(clients[side], { side, seen: row.attempt, attempt });
      if (side === "old") await reached(deps, "raise-half");
    }
  });
  return { kind: "raised", attempt, facts: await readFacts(clients) };
}

async function raiseSide(
  client: pg.Client,
  { side, seen, attempt }: { side: Side; seen: number; attempt: Attempt },
): Promise<void> {
  const deadline = performance.now() + RAISE_MS;
  for (;;) {
    try {
      const change = writeAttemptSql(side, attempt);
      await changeFenced(client, {
        side,
        expected: { attempt: seen },
        lockTimeoutMs: RAISE_LOCK_MS,
        change,
      });
      return;
    } catch (error) {
      if (!isBusy(error) || performance.now() > deadline) throw error;
    }
    await sleep(50);
  }
}

interface Resolve {
  readonly attempt: Attempt;
  /** Read after the attempt was committed on both sides. */
  readonly facts: Facts;
  readonly steps: StepRecorder;
}

/** The guard was never closed, so no write was refused and no row moved: only the marks of the attempt are taken back. */
async function undo(deps: FinishDeps, { attempt, facts, steps }: Resolve): Promise<Recovery> {
  await steps.run("undo", () => release(deps, attempt.number));
  await endAttempt(deps, attempt, steps, attempt.from);
  return {
    outcome: "undone",
    authority: attempt.from,
    epoch: facts[attempt.from].row.epoch,
    attempt,
  };
}

/**
 * The decision has fallen: repeats everything from the close on, setting and never incrementing. A side that went back in time is
 * copied again as a whole: it may have taken writes of its own, and forgotten some.
 */
async function goForward(deps: FinishDeps, { attempt, facts, steps }: Resolve): Promise<Recovery> {
  const { number, from, to, epoch } = attempt;
  const direction = directionFrom(to);
  const change = (doing: string, side: Side, statements: readonly string[]) =>
    untilDone(
      deps,
      `${doing} the ${side} side (no side takes writes until the flip is through)`,
      () =>
        onSide(deps, side, (client) =>
          changeFenced(client, {
            side,
            expected: { attempt: number },
            lockTimeoutMs: CLOSE_LOCK_MS,
            change: statements.join(";\n"),
          }),
        ),
    );
  const isBack = wentBack(attempt, facts);
  if (isBack)
    deps.log.error(
      { side: from, epoch: facts[from].row.epoch },
      `the ${from} side went back in time: it is closed, and everything copied to it again`,
    );
  await steps.run("close-again", () =>
    change("closing", from, [
      ...(isBack ? [voidPositionSql(direction)] : []),
      ...closeAgainSql(from),
    ]),
  );
  // A side that came back from a failover or a restore may have lost its triggers' state; after a mere crash these find all in place.
  await steps.run("arm-again", () =>
    untilDone(deps, `arming the ${from} side`, async () => {
      const { tables } = deps.sides[from];
      const arming = { side: from, tables, attempt: number, timeoutMs: ARM_MS };
      await onSide(deps, from, (client) => arm(client, arming), ARM_MS * 2);
      await deps.ensureFeed(to);
    }),
  );
  // Only now: a mirror that finds both rows alike begins, and nobody else may be writing then.
  await steps.run("turn-again", () =>
    change("turning", from, [writeDirectionSql(from, direction, epoch)]),
  );
  const lock = directionLock(to);
  await steps.run("switch-again", () =>
    change("switching", to, [
      `select pg_advisory_xact_lock(${lock.classId}, ${lock.objectId})`,
      writeDirectionSql(to, direction, epoch),
    ]),
  );
  await finish(deps, { attempt, steps });
  return { outcome: "completed", authority: to, epoch, attempt };
}

/**
 * The lock is waited for as briefly as in a flip. Nobody has it where the decision was interrupted; a side that came back open has
 * writers, and what they commit must not come after what is synced to it.
 */
function closeAgainSql(from: Side): string[] {
  const { classId, objectId } = guardLock(from);
  return [
    `select set_config('lock_timeout', (${GUARD_PATIENCE_SQL})::text, true)`,
    `select pg_advisory_xact_lock(${classId}, ${objectId})`,
    `select setval('crossfade.guard_${from}', 1)`,
  ];
}

/** Pure. Whether a restore or failover set `from` back: it closed and turned before `to` did, and that was on its disk. */
function wentBack({ from, to, epoch }: Attempt, facts: Facts): boolean {
  const turned = (side: Side) => facts[side].row.epoch >= epoch;
  return !facts[from].closed || (turned(to) && !turned(from));
}

/** Whether the sides are in order right now, without changing anything. */
export async function sidesAgree(deps: SideDeps): Promise<boolean> {
  const clients = await openBoth(deps);
  try {
    return examine(await readFacts(clients)).kind === "settled";
  } finally {
    await closeBoth(clients);
  }
}
