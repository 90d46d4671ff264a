import { coversOf, isOpen, OPEN, standingHere, tokenOf, WRITTEN } from "./tokens.ts";
import { sideAt, versionOf } from "./state.ts";
import type { Sidecar } from "./state.ts";
import { fenceNow, isWithout, sidecarOf, stageOf, viewBy } from "./turn.ts";
import type { Self } from "./turn.ts";

/** What a sidecar does by itself: its fence, its gate, what it hears. */
export function sidecarSteps(self: Self): void {
  if (self.now.alive === 0) return;
  fence(self);
  gate(self);
  news(self);
}

/** The answer of the authority binds the client here until a fence that was asked for now has passed. */
export function bindHere({ turn, now, stage }: Self, me: Sidecar): void {
  if (isTracking(now) && turn.has("what was answered binds the client here, too"))
    me.bound = tokenOf(stage.epoch, OPEN);
}

/** `ReadGate.tracking`. */
export const isTracking = ({ connected, gate }: Sidecar) => connected === 1 && gate > 0;

function fence(self: Self): void {
  const { turn, who, now } = self;
  if (now.bound === 0 || !isOpen(now.bound)) return;
  const written = fenceNow(self);
  const isEarly = !turn.has("a fence is asked for after the write") && coversOf(written) > WRITTEN;
  turn.add(`${who}'s fence is written`, (next) => {
    sidecarOf(next, who).bound = isEarly ? written - 1 : written;
  });
}

function gate(self: Self): void {
  const { turn, who, now, other, stage } = self;
  if (now.connected === 0 || !stage.wanted) return;
  // The other's report is of its stage or of one before: it never says more than it has heard.
  const inStep = other.stage >= now.since || isWithout(self);
  if (now.gate === 0 && (inStep || !turn.has("all live sidecars are in step")))
    turn.add(`${who} begins to open its gate`, (next) => {
      // Were it written later, it would cover more.
      const barrier = fenceNow(self);
      const isOpen =
        !turn.has("the gate opens behind a fence") ||
        standingHere(barrier, viewBy(self)) === "passed";
      Object.assign(sidecarOf(next, who), {
        bound: 0,
        gate: isOpen ? 2 : 1,
        barrier: isOpen ? 0 : barrier,
      });
    });
  if (now.gate === 1 && standingHere(now.barrier, viewBy(self)) === "passed")
    turn.add(`${who} opens its gate`, (next) => {
      Object.assign(sidecarOf(next, who), { gate: 2, barrier: 0 });
    });
}

/** What comes over the control store: the stage, what has passed. */
function news(self: Self): void {
  const { turn, who, now } = self;
  const { world } = turn;
  if (now.linked === 0) {
    if (now.connected === 1)
      turn.add(`${who} notices that it is cut off`, (next) => notice(sidecarOf(next, who)));
    turn.add(`${who} is linked again`, (next) => (sidecarOf(next, who).linked = 1));
    return;
  }
  if (now.stage !== world.stage || now.connected === 0)
    turn.add(`${who} reads the state`, (next) => readState(self, sidecarOf(next, who)));
  const follower = versionOf(world, 1 - sideAt(stageOf(turn, world.stage)));
  if (mayHear(self) && now.passed < follower)
    turn.add(`${who} hears what has passed`, (next) => (sidecarOf(next, who).passed = follower));
}

/** Whether it hears what has passed in its epoch. */
export function mayHear({ turn, now, stage }: Self): boolean {
  const isLinked = now.alive === 1 && now.linked === 1;
  return isLinked && stage.epoch === stageOf(turn, turn.world.stage).epoch;
}

function readState({ turn, now, stage }: Self, me: Sidecar): void {
  const read = stageOf(turn, turn.world.stage);
  const isBack = now.connected === 0;
  const grew = read.wanted && !stage.wanted;
  if (isBack || grew) me.unbroken = turn.world.stage;
  if (grew || (isBack && turn.has("who is back counts on what is said since")))
    me.since = me.unbroken;
  if (read.epoch !== stage.epoch) Object.assign(me, { passed: 0, bound: 0, gate: 0, barrier: 0 });
  if (!read.wanted) me.gate = me.barrier = 0;
  me.stage = turn.world.stage;
  me.connected = 1;
}

export function notice(me: Sidecar): void {
  Object.assign(me, { connected: 0, gate: 0, barrier: 0 });
}
