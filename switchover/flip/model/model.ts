import { accidents } from "./accidents.ts";
import { attemptSteps } from "./attempt.ts";
import { canonical } from "./canonical.ts";
import { Controller } from "./controller.ts";
import { mirrorSteps } from "./mirror.ts";
import { recoverySteps } from "./recovery.ts";
import { backups, backUp } from "./restore.ts";
import type { FlipBounds, FlipRule } from "./rules.ts";
import {
  ARMED,
  BACKUP,
  BACKUP_OF,
  BROKEN,
  DATA,
  EPOCH,
  GUARD,
  initialState,
  isSettled,
  LEFT_BEHIND,
  of,
  OLD,
  SIDES,
  STRAY,
  syncsTo,
  TARGET,
  WRITES,
  writesIn,
} from "./state.ts";
import type { State } from "./state.ts";
import type { Turn } from "./turn.ts";
import { inFlight, writerSteps } from "./writers.ts";

/**
 * The flip protocol of ../SPEC.md as a model to explore: two databases, two controllers that flip and recover as they like, a
 * mirror, and two writers. Any process may stop between two steps, for ever or until everything has changed; its server ends its
 * transactions or does not notice; servers crash and forget what was not flushed; the closed side is restored from a backup, and open.
 *
 * Not in it: sequences, an authority that went back to an older state, quarantine, sidecars' holds (the model's writers never wait for them).
 */
export function flipModel(bounds: FlipBounds, without?: FlipRule) {
  const has = (rule: FlipRule) => rule !== without;
  const initial = initialState(has("the follower stays armed"));
  if (bounds.restores !== undefined && bounds.restores !== "from any time") backUp(initial, OLD);
  if (bounds.restores === "armed, from the start") initial[BACKUP + ARMED] = 1;
  return {
    initial: initial as State,
    /** Every step that any process, server or network may take. That none is taken for long is how pauses are in it. */
    next(state: State) {
      const steps: { label: string; state: State }[] = [];
      const add: Turn["add"] = (label, change) => {
        const next = [...state];
        change(next);
        const left = next[LEFT_BEHIND]! - 1;
        if (left >= 0 && follows(next, left)) next[LEFT_BEHIND] = 0;
        steps.push({ label, state: canonical(next) });
      };
      const turn: Turn = { state, bounds, has, add };
      for (const who of [0, 1]) {
        writerSteps(turn, who);
        const controller = new Controller(turn, who);
        attemptSteps(controller);
        recoverySteps(controller);
      }
      mirrorSteps(turn);
      accidents(turn);
      backups(turn);
      return steps;
    },
    wrong,
    /** Must stay reachable from everywhere, or something hangs for ever. */
    isGoal: isSettled,
  };
}

/** Whether a side takes no writes but those of the mirror. */
function follows(state: State, side: number): boolean {
  const turned = of(state, side, EPOCH) === of(state, 1 - side, EPOCH);
  return turned && of(state, side, GUARD) === 1 && of(state, side, ARMED) === 1;
}

/** What is wrong with a state; undefined if nothing is. */
function wrong(state: State): string | undefined {
  const target = Math.max(...SIDES.map((side) => of(state, side, TARGET)));
  if (SIDES.some((side) => of(state, side, EPOCH) > target))
    return "has an epoch that nobody decided on";
  if (state[BROKEN] === 1) return "calls an attempt undone whose guard is closed";
  const left = state[LEFT_BEHIND]! - 1;
  const open = SIDES.filter((side) => of(state, side, GUARD) === 0 && side !== left);
  if (open.length === 2) return "has two authorities";
  if (left >= 0 && open.length === 0) return "takes a side that was restored for the authority";
  // What is written there beside the syncs stays, and the authority never knows of it.
  const isWritten = SIDES.some(
    (side) => syncsTo(state, side) && [2, 3].some((phase) => writesIn(state, side, phase)),
  );
  if (isWritten && state[BACKUP_OF] === 3) return "syncs to a side that is written to";
  const acknowledged = ((1 << state[WRITES]!) - 1) & ~inFlight(state) & ~state[STRAY]!;
  const isLost = open.some((side) => (acknowledged & ~of(state, side, DATA)) !== 0);
  return isLost ? "loses a write" : undefined;
}
