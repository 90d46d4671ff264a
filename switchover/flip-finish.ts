import type pg from "pg";
import { SIDES, directionFrom } from "../config/words.ts";
import type { Phase, Side } from "../config/words.ts";
import { arm, disarm } from "../store/postgres/guard.ts";
import { changeFenced, endAttemptSql, requireNewest } from "../store/postgres/state.ts";
import type { Attempt } from "../store/postgres/state.ts";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import { within } from "./flip-budget.ts";
import { isStale, limitsOf, onSide, reached, untilDone } from "./flip-sessions.ts";
import type { FinishDeps } from "./flip-sessions.ts";
import type { StepRecorder } from "./flip-steps.ts";
import type { Acknowledgements, FlipDeps } from "./flip-types.ts";

/** Per try; every step here is repeated. */
const LOCK_MS = 2_000;
const FLEET_MS = 5_000;
/** A sidecar that has not answered by then has lifted its hold by itself; the guard decides about its writes. */
const SHORTEST_ACKNOWLEDGE_MS = 1_000;

export interface Finish {
  readonly attempt: Attempt;
  readonly steps: StepRecorder;
  readonly phase?: Phase;
  /** What is left of the sidecars' lease. */
  readonly leaseMs?: number;
}

/** From the committed direction on both sides to the end: open, tell, release, end, disarm. Every step can be repeated. */
export async function finish(deps: FinishDeps, work: Finish): Promise<void> {
  const { attempt, steps } = work;
  await steps.run("open", () =>
    untilDone(deps, `opening the ${attempt.to} side (no side takes writes until then)`, () =>
      onSide(deps, attempt.to, (client) => openGuard(client, attempt), LOCK_MS * 2),
    ),
  );
  using acknowledgements = deps.fleet.listenForEpoch(attempt.epoch);
  await steps.run("publish", () =>
    untilDone(deps, "recording the authority", () => publish(deps, work)),
  );
  await steps.run("acknowledge", () => acknowledge(deps, work, acknowledgements));
  await steps.run("release", () => release(deps, attempt.number));
  await endAttempt(deps, attempt, steps);
}

/** Marks the attempt as ended on both sides, then takes the guard off the authority's tables. */
export async function endAttempt(
  deps: FinishDeps,
  attempt: Attempt,
  steps: StepRecorder,
  authority: Side = attempt.to,
): Promise<void> {
  await steps.run("end", async () => {
    for (const side of SIDES) {
      await untilDone(deps, `ending the attempt on the ${side} side`, () =>
        onSide(deps, side, (client) =>
          changeFenced(client, {
            side,
            expected: { attempt: attempt.number },
            lockTimeoutMs: LOCK_MS,
            change: endAttemptSql(side),
          }),
        ),
      );
      if (side === "old") await reached(deps, "end-half");
    }
  });
  await steps.run("disarm", () => tidy(deps, attempt.number, authority));
}

/** Disarms the authority as far as that goes now. A guard that stays armed costs speed, not writes; the next recovery tries again. */
export async function tidy(deps: FinishDeps, attempt: number, authority: Side): Promise<void> {
  const change = {
    side: authority,
    tables: deps.sides[authority].tables,
    attempt,
    timeoutMs: limitsOf(deps).disarmMs,
  };
  try {
    await onSide(deps, authority, (client) => disarm(client, change), change.timeoutMs + LOCK_MS);
  } catch (error) {
    if (isStale(error)) throw error;
    deps.log.warn(
      { err: error },
      `flip: the guard of the ${authority} side stays armed for now: ${messageOf(error)}`,
    );
  }
}

/** The follower's guard is armed always: covers partitions made since, and triggers that were disabled behind our back. */
export async function armFollower(
  deps: FinishDeps,
  attempt: number,
  follower: Side,
): Promise<void> {
  const change = {
    side: follower,
    tables: deps.sides[follower].tables,
    attempt,
    timeoutMs: limitsOf(deps).disarmMs,
  };
  try {
    await onSide(deps, follower, (client) => arm(client, change), change.timeoutMs + LOCK_MS);
  } catch (error) {
    if (isStale(error)) throw error;
    deps.log.warn(
      { err: error },
      `flip: not every table of the ${follower} side is guarded: ${messageOf(error)}`,
    );
  }
}

/** A failing release is no failure of the flip: the lease ends the hold. */
export async function release(deps: FlipDeps, attempt: number): Promise<void> {
  try {
    await within(FLEET_MS, "the control store", deps.fleet.release(attempt));
  } catch (error) {
    deps.log.warn(
      { err: error },
      `flip: the hold could not be released, its lease ends it: ${messageOf(error)}`,
    );
  }
}

/** Never in the transaction that changes the direction: `setval` would be seen although that is rolled back. */
async function openGuard(client: pg.Client, attempt: Attempt): Promise<void> {
  await changeFenced(client, {
    side: attempt.to,
    expected: {
      attempt: attempt.number,
      ended: false,
      direction: directionFrom(attempt.to),
      epoch: attempt.epoch,
    },
    lockTimeoutMs: LOCK_MS,
    change: `select setval('crossfade.guard_${attempt.to}', 0)`,
  });
}

async function publish(deps: FinishDeps, { attempt, phase }: Finish): Promise<void> {
  // A controller that was paused must not publish what others have replaced since.
  let overtaken: unknown;
  const mustBeNewest = async () => {
    try {
      await onSide(deps, attempt.to, (client) => requireNewest(client, attempt.to, attempt.number));
    } catch (error) {
      overtaken = error;
      throw error;
    }
  };
  const { to: authority, epoch } = attempt;
  const news = { authority, epoch, phase, mustBeNewest };
  try {
    await within(FLEET_MS, "the control store", deps.fleet.publish(news));
  } catch (cause) {
    if (isStale(overtaken)) throw overtaken;
    // Whatever moved on in the control store: only the state rows say that this attempt was overtaken.
    throw new CrossfadeError("FAILED", messageOf(cause), { cause });
  }
}

async function acknowledge(
  deps: FlipDeps,
  work: Finish,
  acknowledgements: Acknowledgements,
): Promise<void> {
  const ms = Math.max(SHORTEST_ACKNOWLEDGE_MS, work.leaseMs ?? 0);
  try {
    const { missing } = await within(
      ms + FLEET_MS,
      "the control store",
      acknowledgements.untilAll(ms),
    );
    if (missing.length > 0) {
      deps.log.warn(
        { missing },
        `flip: not acknowledged by ${missing.join(", ")}: the guard refuses what they still send to the ${work.attempt.from} side`,
      );
    }
  } catch (error) {
    deps.log.warn({ err: error }, `flip: who has acknowledged is unknown: ${messageOf(error)}`);
  }
}
