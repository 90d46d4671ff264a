import { accidents } from "./accidents.ts";
import { attemptSteps } from "./attempt.ts";
import { canonical } from "./canonical.ts";
import { Controller } from "./controller.ts";
import { mirrorSteps } from "./mirror.ts";
import { recoverySteps } from "./recovery.ts";
import type { FlipBounds, FlipRule } from "./rules.ts";
import {
  BROKEN,
  DATA,
  EPOCH,
  GUARD,
  initialState,
  isSettled,
  of,
  SIDES,
  TARGET,
  WRITES,
} from "./state.ts";
import type { State } from "./state.ts";
import type { Turn } from "./turn.ts";
import { inFlight, writerSteps } from "./writers.ts";

/**
 * The flip protocol of ../SPEC.md as a model to explore: two databases, two controllers that flip and recover as they like, a
 * mirror, and two writers. Any process may stop between two steps, for ever or until everything has changed; its server ends its
 * transactions or does not notice; servers crash and forget what was not flushed.
 *
 * Not in it: sequences, a failover to an older state, quarantine, sidecars' holds (the model's writers never wait for them).
 */
export function flipModel(bounds: FlipBounds, without?: FlipRule) {
  const has = (rule: FlipRule) => rule !== without;
  return {
    initial: initialState(has("the follower stays armed")) as State,
    /** Every step that any process, server or network may take. That none is taken for long is how pauses are in it. */
    next(state: State) {
      const steps: { label: string; state: State }[] = [];
      const add: Turn["add"] = (label, change) => {
        const next = [...state];
        change(next);
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
      return steps;
    },
    wrong,
    /** Must stay reachable from everywhere, or something hangs for ever. */
    isGoal: isSettled,
  };
}

/** What is wrong with a state; undefined if nothing is. */
function wrong(state: State): string | undefined {
  const target = Math.max(...SIDES.map((side) => of(state, side, TARGET)));
  if (SIDES.some((side) => of(state, side, EPOCH) > target))
    return "has an epoch that nobody decided on";
  if (state[BROKEN] === 1) return "calls an attempt undone whose guard is closed";
  const open = SIDES.filter((side) => of(state, side, GUARD) === 0);
  if (open.length === 2) return "has two authorities";
  const acknowledged = ((1 << state[WRITES]!) - 1) & ~inFlight(state);
  const isLost = open.some((side) => (acknowledged & ~of(state, side, DATA)) !== 0);
  return isLost ? "loses a write" : undefined;
}
