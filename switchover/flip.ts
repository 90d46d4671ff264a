import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import { closeSession } from "../store/postgres/session.ts";
import { Budget, within } from "./flip-budget.ts";
import {
  closeGuard,
  commit,
  hold,
  passFence,
  raiseAgain,
  switchOther,
  takeGuard,
} from "./flip-cross.ts";
import type { Progress } from "./flip-cross.ts";
import { finish, release } from "./flip-finish.ts";
import { beginAttempt, mustGoOn, prepare } from "./flip-prepare.ts";
import type { AttemptContext, AttemptSessions, Prepared } from "./flip-prepare.ts";
import { recover } from "./flip-recover.ts";
import { KeptSessions, isStale, limitsOf, openFlipSession, untilDone } from "./flip-sessions.ts";
import { StepRecorder } from "./flip-steps.ts";
import type {
  FlipDeps,
  FlipRequest,
  FlipStep,
  HeldStats,
  Receipt,
  Recovery,
} from "./flip-types.ts";

/** The client waits a little longer than the server's own time-out, whose error says more. */
const GRACE_MS = 100;
const UNFINISHED =
  "a database does not answer: nothing moved, and the controller that leads finishes the clean-up when it does";

/**
 * Moves the authority from one side to the other, or rehearses it (`drill`), exactly as switchover/flip/SPEC.md says.
 *
 * Returns the receipt; `ok: false` means undone: nothing moved, no write was refused. Throws REFUSED before anything is
 * changed, STALE if another process took over, FLIP_UNKNOWN if it was told to stop after the decision: `recover` goes on.
 */
export async function runFlip(deps: FlipDeps, request: FlipRequest): Promise<Receipt> {
  const steps = new StepRecorder(deps);
  const sessions = await openSessions(deps, request);
  try {
    const begun = await begin(deps, request, { clients: bySide(request, sessions), steps });
    deps.log.info(
      { ...begun.attempt, by: request.by },
      `${request.kind} from ${request.from} to ${request.to} begins`,
    );
    return await attemptFlip({ deps, request, sessions, steps, ...begun });
  } finally {
    await closeSessions(sessions);
  }
}

async function openSessions(deps: FlipDeps, request: FlipRequest): Promise<AttemptSessions> {
  const opened: pg.Client[] = [];
  try {
    for (const side of [request.from, request.to, request.from] as const)
      opened.push(await openFlipSession(deps, side));
  } catch (error) {
    await Promise.all(opened.map(closeSession));
    throw error;
  }
  const [authority, other, probe] = opened as [pg.Client, pg.Client, pg.Client];
  return { authority, other, probe };
}

function bySide({ from }: FlipRequest, { authority, other }: AttemptSessions) {
  return from === "old" ? { old: authority, new: other } : { old: other, new: authority };
}

async function closeSessions(sessions: AttemptSessions): Promise<void> {
  await Promise.all([sessions.authority, sessions.other, sessions.probe].map(closeSession));
}

interface Begin {
  readonly clients: Parameters<typeof beginAttempt>[2];
  readonly steps: StepRecorder;
}

async function begin(
  deps: FlipDeps,
  request: FlipRequest,
  { clients, steps }: Begin,
): ReturnType<typeof beginAttempt> {
  try {
    return await steps.run("begin", () => beginAttempt(deps, request, clients));
  } catch (error) {
    const untouched =
      error instanceof CrossfadeError && (error.code === "REFUSED" || error.code === "STALE");
    // One of the two rows may have been written: nothing was armed for it yet, so it can be taken back at once or later.
    if (!untouched)
      await recover(deps).catch((cause: unknown) =>
        deps.log.warn({ err: cause }, `flip: ${messageOf(cause)}`),
      );
    throw error;
  }
}

async function attemptFlip(context: AttemptContext): Promise<Receipt> {
  const progress: Progress = { held: false, closing: false };
  let budget: Budget;
  try {
    const prepared = await prepare(context);
    budget = new Budget(context.request.budgetMs);
    await cross(context, { prepared, budget, progress });
    if (context.request.kind === "drill") return await endDrill(context);
    await decide(context);
  } catch (error) {
    return await resolveFailure(context, progress, error);
  }
  const { deps, request, attempt, sessions, steps } = context;
  const phase = request.phase === undefined ? {} : { phase: request.phase };
  const kept = new KeptSessions(bySide(request, sessions));
  try {
    await finish({ ...deps, kept }, { attempt, steps, leaseMs: budget.leaseLeft(), ...phase });
  } finally {
    await kept.close();
  }
  return receipt(context, { ok: true, epoch: attempt.epoch, why: null });
}

interface Crossing {
  readonly prepared: Prepared;
  readonly budget: Budget;
  readonly progress: Progress;
}

/** From the hold to the last moment before the decision. */
async function cross(
  context: AttemptContext,
  { prepared, budget, progress }: Crossing,
): Promise<void> {
  const timed = (name: FlipStep, work: () => Promise<void>) => {
    mustGoOn(context);
    return context.steps.run(name, () =>
      within(budget.left(name) + GRACE_MS, `the step "${name}"`, work()),
    );
  };
  await timed("hold", () => hold(context, budget, progress));
  await timed("guard", () => takeGuard(context, budget, prepared.guard));
  await timed("fence", () => passFence(context, budget));
  await timed("sequences-again", () => raiseAgain(context, prepared.sequences));
  await timed("switch", () => switchOther(context, budget));
  mustGoOn(context);
  if (context.request.kind !== "drill")
    await context.steps.run("close", () => closeGuard(context, budget, progress));
}

async function decide(context: AttemptContext): Promise<void> {
  const { steps, sessions, request } = context;
  await steps.run("decide", () =>
    commit(sessions.authority, `the decision on the ${request.from} side`),
  );
  await steps.run("follow", () => commit(sessions.other, `the switch of the ${request.to} side`));
}

/** A drill ends where a flip decides. */
async function endDrill(context: AttemptContext): Promise<Receipt> {
  const recovery = await takeBack(context, true);
  return receipt(context, {
    ok: true,
    epoch: context.epoch,
    why: recovery === undefined ? UNFINISHED : null,
  });
}

/**
 * Before `setval` was sent nothing has moved, and the app need not wait for the clean-up. After it, only a recovery knows.
 * A STALE passes through recovery too: it says whether the attempt was overtaken, or only something around it moved.
 */
async function resolveFailure(
  context: AttemptContext,
  progress: Progress,
  error: unknown,
): Promise<Receipt> {
  const { deps, request, attempt, epoch, sessions, steps } = context;
  const why = messageOf(error);
  deps.log.warn({ err: error }, `flip: attempt ${attempt.number}: ${why}`);
  let recovery: Recovery | undefined;
  if (progress.closing) {
    await closeSessions(sessions);
    const claim = new Set([attempt.number]);
    recovery = await untilDone(deps, "recovering the flip", () => recover(deps, { claim, steps }));
  } else {
    recovery = await takeBack(context, progress.held);
  }
  if (recovery === undefined)
    return receipt(context, { ok: false, epoch, why: `${why}; ${UNFINISHED}` });
  return receipt(context, { ok: recovery.authority === request.to, epoch: recovery.epoch, why });
}

/** Ends the two transactions, releases the sidecars, and has the attempt undone. Undefined: a database does not answer. */
async function takeBack(context: AttemptContext, held: boolean): Promise<Recovery | undefined> {
  const { deps, attempt, sessions, steps } = context;
  await Promise.all([closeSessions(sessions), held ? release(deps, attempt.number) : undefined]);
  const deadline = performance.now() + limitsOf(deps).undoMs;
  const claim = new Set([attempt.number]);
  for (;;) {
    try {
      return await recover(deps, { claim, steps });
    } catch (error) {
      if (isStale(error)) throw error;
      deps.log.warn(
        { err: error },
        `flip: taking attempt ${attempt.number} back: ${messageOf(error)}`,
      );
      if (performance.now() > deadline || deps.signal?.aborted === true) return undefined;
    }
    await sleep(250);
  }
}

interface Outcome {
  readonly ok: boolean;
  readonly epoch: number;
  readonly why: string | null;
}

async function receipt(context: AttemptContext, outcome: Outcome): Promise<Receipt> {
  const { deps, request, attempt, steps } = context;
  const stats = await heldStats(deps, attempt.number);
  const { kind, from, to } = request;
  const { ok, epoch, why } = outcome;
  const { writes_held, hold_ms, failed } = stats ?? {
    writes_held: null,
    hold_ms: null,
    failed: null,
  };
  return { kind, ok, from, to, epoch, writes_held, hold_ms, failed, steps: [...steps.steps], why };
}

/** Measures that cannot be had are null, never zero. */
async function heldStats(deps: FlipDeps, attempt: number): Promise<HeldStats | undefined> {
  try {
    return await within(5_000, "the control store", deps.fleet.heldStats(attempt));
  } catch (error) {
    deps.log.warn(
      { err: error },
      `flip: what the sidecars measured is unknown: ${messageOf(error)}`,
    );
    return undefined;
  }
}
