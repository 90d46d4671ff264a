import type { Controller } from "./controller.ts";
import {
  ARMED,
  ATTEMPT,
  base,
  BROKEN,
  ENDED,
  EPOCH,
  flush,
  GUARD,
  isDecided,
  isSettled,
  NEW,
  newestAttempt,
  NUMBER,
  of,
  OLD,
  OWNER,
  SEEN,
  syncsTo,
  TARGET,
  TO_EPOCH,
  UNDONE,
  WANTED,
  writesIn,
} from "./state.ts";
import type { Place, State } from "./state.ts";

/** The steps of flip-recover.ts, by any controller at any time. */
export function recoverySteps(me: Controller): void {
  STEPS[me.at]?.(me);
}

const STEPS: Partial<Record<Place, (me: Controller) => void>> = {
  idle: begin,
  failed: (me) => me.step("cleans up", "idle"),
  raise: (me) => raise(me, OLD, "raise-half"),
  "raise-half": (me) => raise(me, NEW, "read"),
  read,
  undo,
  "undo-half": (me) =>
    me.fenced(NEW, "undoes on new", {
      leadsTo: "undo-disarm",
      change: (next) => (next[base(NEW) + ENDED] = 1),
    }),
  "undo-disarm": (me) => me.disarm(me.from),
  "close-again": closeAgain,
  "arm-again": armAgain,
  "turn-again": turnAgain,
  "switch-again": switchAgain,
};

function begin(me: Controller): void {
  const { state, c } = me;
  if (isSettled(state)) return;
  const seen = newestAttempt(state);
  const target = targetToResolve(state);
  me.step("begins a recovery", "raise", (next) => {
    next[c + SEEN] = seen;
    next[c + NUMBER] = seen + 1;
    next[c + TO_EPOCH] = target;
    if (!me.has("a recovery raises before it reads"))
      next[c + WANTED] = isDecided(state, target) ? 2 : 1;
  });
}

/** As `examine` of flip-decide.ts has it: of the newest attempt, or where that has ended, the higher epoch of the two. */
function targetToResolve(state: State): number {
  const [old, next] = [of(state, OLD, ATTEMPT), of(state, NEW, ATTEMPT)];
  const newest = old > next || (old === next && of(state, OLD, ENDED) === 0) ? OLD : NEW;
  const isOver =
    of(state, newest, ENDED) === 1 && (old !== next || of(state, 1 - newest, ENDED) === 1);
  return isOver
    ? Math.max(of(state, OLD, EPOCH), of(state, NEW, EPOCH))
    : of(state, newest, TARGET);
}

function raise(me: Controller, side: number, then: Place): void {
  const { state } = me;
  if (side !== me.to && !me.has("an attempt of both sides, or nothing, is raised"))
    return me.step(`leaves ${side} out`, then);
  if (of(state, side, OWNER) !== 0) return undefined;
  // What is higher than all it has found has taken over.
  if (of(state, side, ATTEMPT) > state[me.c + SEEN]!)
    return me.step(`raises ${side}: taken over`, "idle");
  return me.step(`raises ${side}`, then, (next) => {
    me.writeAttempt(next, side);
    if (me.has("a raise is flushed")) flush(next, side);
  });
}

function read(me: Controller): void {
  const { state, c } = me;
  const decided = me.has("a recovery raises before it reads")
    ? isDecided(state, me.target)
    : state[c + WANTED] === 2;
  const forward = me.has("a recovery closes again") ? "close-again" : "arm-again";
  me.step(
    `reads that it is ${decided ? "" : "not "}decided`,
    decided ? forward : "undo",
    (next) => {
      next[c + WANTED] = next[c + SEEN] = 0;
    },
  );
}

function undo(me: Controller): void {
  const then = "undo-half";
  const change = (next: number[]) => {
    next[base(OLD) + ENDED] = 1;
    next[UNDONE] = me.number;
    if (of(me.state, me.from, GUARD) === 1) next[BROKEN] = 1;
  };
  if (me.has("an attempt of both sides, or nothing, is raised"))
    me.fenced(OLD, "undoes on old", { leadsTo: then, change });
  else me.step("undoes what it can reach", then, change);
}

function closeAgain(me: Controller): void {
  if (writesIn(me.state, me.from, 2) && me.has("a side is closed again once its writers are done"))
    return;
  me.fenced(me.from, "closes again", {
    leadsTo: me.has("a side is armed again before it turns") ? "arm-again" : "turn-again",
    change: (next) => (next[base(me.from) + GUARD] = 1),
  });
}

function armAgain(me: Controller): void {
  if (writesIn(me.state, me.from, 3)) return;
  me.fenced(me.from, "arms again", {
    leadsTo: me.has("a side is armed again before it turns") ? "turn-again" : "switch-again",
    change: (next) => (next[base(me.from) + ARMED] = 1),
  });
}

function turnAgain(me: Controller): void {
  me.fenced(me.from, "turns again", {
    leadsTo: me.has("a side is armed again before it turns") ? "switch-again" : "arm-again",
    change: (next) => (next[base(me.from) + EPOCH] = me.target),
  });
}

function switchAgain(me: Controller): void {
  if (syncsTo(me.state, me.to) && me.has("the switch waits for syncs")) return;
  me.fenced(me.to, "switches again", {
    leadsTo: "open",
    change: (next) => {
      if (me.has("epochs are set, not incremented")) next[base(me.to) + EPOCH] = me.target;
      else next[base(me.to) + EPOCH]! += 1;
    },
  });
}
