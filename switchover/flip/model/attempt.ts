import type { Controller } from "./controller.ts";
import {
  ARMED,
  ATTEMPT,
  base,
  ENDED,
  EPOCH,
  FENCE,
  flush,
  GUARD,
  isSettled,
  NEW,
  newestAttempt,
  NUMBER,
  of,
  OLD,
  OWNER,
  POSITION,
  POSITION_EPOCH,
  SIDES,
  syncsTo,
  TO_EPOCH,
  WANTED,
  writesIn,
} from "./state.ts";
import type { Place } from "./state.ts";

/** The steps of a flip, from `begin` to `disarm`: flip-prepare.ts, flip-cross.ts and flip-finish.ts. */
export function attemptSteps(me: Controller): void {
  STEPS[me.at]?.(me);
}

const STEPS: Partial<Record<Place, (me: Controller) => void>> = {
  idle: begin,
  "begin-half": beginOnNew,
  arm,
  "early-fence": (me) => writeFence(me, "writes the fence too early", "guard"),
  guard: takeGuard,
  fence: (me) => writeFence(me, "writes the fence", "wait"),
  wait,
  switch: switchOther,
  close,
  decide,
  follow,
  open,
  end: (me) =>
    me.fenced(OLD, "ends on old", {
      leadsTo: "end-half",
      change: (next) => (next[base(OLD) + ENDED] = 1),
    }),
  "end-half": (me) =>
    me.fenced(NEW, "ends on new", {
      leadsTo: "disarm",
      change: (next) => (next[base(NEW) + ENDED] = 1),
    }),
  disarm: (me) => me.disarm(me.to),
};

function begin(me: Controller): void {
  const { state, c } = me;
  const epoch = of(state, OLD, EPOCH);
  const isFree = SIDES.every((side) => of(state, side, OWNER) === 0);
  if (!isSettled(state) || epoch >= me.bounds.epochs || !isFree) return;
  const attempt = { number: newestAttempt(state) + 1, target: epoch + 1 };
  me.step("begins a flip", "begin-half", (next) => {
    next[c + NUMBER] = attempt.number;
    next[c + TO_EPOCH] = attempt.target;
    me.writeAttempt(next, OLD, attempt);
  });
}

function beginOnNew(me: Controller): void {
  if (of(me.state, NEW, OWNER) !== 0) return;
  if (of(me.state, NEW, ATTEMPT) < me.number && of(me.state, NEW, ENDED) === 1)
    me.step("begins on new", "arm", (next) => {
      me.writeAttempt(next, NEW);
      flush(next, NEW);
    });
  else me.step("begins on new: taken over", "idle");
}

function arm(me: Controller): void {
  // The table's lock waits for writers that no trigger stopped.
  if (writesIn(me.state, me.from, 3)) return;
  me.fenced(me.from, "arms", {
    leadsTo: me.has("the fence is written under the lock") ? "guard" : "early-fence",
    change: (next) => (next[base(me.from) + ARMED] = 1),
  });
}

function writeFence(me: Controller, label: string, then: Place): void {
  me.step(label, then, (next) => {
    next[base(me.from) + FENCE]! += 1;
    next[me.c + WANTED] = of(next, me.from, FENCE);
  });
}

function takeGuard(me: Controller): void {
  const { state, from } = me;
  if (of(state, from, OWNER) !== 0) return;
  if (me.has("the guard's lock waits for writers") && writesIn(state, from, 2))
    return me.fails("the guard");
  const isStale =
    of(state, from, ATTEMPT) !== me.number ||
    of(state, from, ENDED) === 1 ||
    of(state, from, EPOCH) !== me.target - 1 ||
    of(state, from, GUARD) !== 0;
  if (isStale && me.has("a step is made for the newest attempt")) return me.fails("the guard");
  if (of(state, from, ARMED) === 0 && me.has("armed tables are checked under the lock"))
    return me.fails("the check");
  const then = me.has("the fence is written under the lock") ? "fence" : "wait";
  return me.step("takes the guard", then, (next) => me.take(next, from));
}

function wait(me: Controller): void {
  const passed =
    of(me.state, me.to, POSITION_EPOCH) === me.target - 1 &&
    of(me.state, me.to, POSITION) >= me.state[me.c + WANTED]!;
  if (passed || !me.has("the mirror passes the fence"))
    me.step("the fence is passed", "switch", (next) => (next[me.c + WANTED] = 0));
  else me.fails("the fence");
}

function switchOther(me: Controller): void {
  const { state, to } = me;
  if (of(state, to, OWNER) !== 0) return;
  if (syncsTo(state, to) && me.has("the switch waits for syncs")) return;
  const isStale = of(state, to, ATTEMPT) !== me.number || of(state, to, EPOCH) !== me.target - 1;
  if (isStale && me.has("a step is made for the newest attempt")) return me.fails("the switch");
  return me.step("switches", "close", (next) => {
    me.take(next, to);
    if (!me.has("the follower opens in a transaction of its own")) next[base(to) + GUARD] = 0;
  });
}

/** `setval` is seen at once, and stays whatever becomes of the transaction. */
function close(me: Controller): void {
  const holdsGuard =
    me.holds(me.from) || !me.has("the guard is closed in the transaction that holds its lock");
  if (!holdsGuard || !me.holds(me.to)) return me.fails("the close");
  const then = me.has("the authority commits first") ? "decide" : "follow";
  return me.step("closes", then, (next) => (next[base(me.from) + GUARD] = 1));
}

function decide(me: Controller): void {
  if (!me.holds(me.from))
    return me.fails("the decision", (next) => {
      if (!me.has("no undo opens a guard")) next[base(me.from) + GUARD] = 0;
    });
  return me.step("decides", me.has("the authority commits first") ? "follow" : "open", (next) => {
    next[base(me.from) + EPOCH] = me.target;
    next[base(me.from) + OWNER] = 0;
    if (me.has("the decision is flushed")) flush(next, me.from);
  });
}

function follow(me: Controller): void {
  if (!me.holds(me.to)) return me.fails("the other side's commit");
  return me.step(
    "the other side follows",
    me.has("the authority commits first") ? "open" : "decide",
    (next) => {
      next[base(me.to) + EPOCH] = me.target;
      next[base(me.to) + OWNER] = 0;
      flush(next, me.to);
    },
  );
}

function open(me: Controller): void {
  me.fenced(me.to, "opens", {
    leadsTo: "end",
    when: of(me.state, me.to, EPOCH) === me.target && of(me.state, me.to, ENDED) === 0,
    change: (next) => (next[base(me.to) + GUARD] = 0),
  });
}
