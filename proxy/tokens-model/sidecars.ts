import { adopt, doubt, hasPassed, lose, store, storeEpoch } from "./redis.ts";
import {
  authorityAt,
  EPOCHS,
  isFollowerWanted,
  NEWER,
  UNWRITTEN,
  versionOf,
  WRITTEN,
} from "./state.ts";
import type { Sidecar, World } from "./state.ts";
import { isWithout, sidecarOf } from "./turn.ts";
import type { Self, Turn } from "./turn.ts";

/** What a sidecar does by itself: fences, its gate, what it tells and hears, Redis. */
export function sidecarSteps(self: Self): void {
  if (self.now.alive === 0) return;
  fences(self);
  gate(self);
  news(self);
  peers(self);
  const { turn, who, now } = self;
  if (now.place === 0)
    turn.add(`${who} takes part in the Redis there is`, (next) => adopt(next, who));
  else if (now.place !== turn.world.generation)
    turn.add(`${who} sees that Redis is another one`, (next) => lose(next, who));
}

/** The client's fence is written, or the line to the database finds that the side is closed. */
function fences({ turn, who, now }: Self): void {
  if (now.toStore === 1)
    turn.add(`${who} stores its fence`, (next) => {
      sidecarOf(next, who).toStore = 0;
      store(turn, next, who, now.bound);
    });
  if (now.bound !== UNWRITTEN) return;
  const fence = fenceNow(turn, now);
  const isEarly = !turn.has("a fence is asked for after the write");
  const bound = isEarly && fence > WRITTEN && fence < NEWER ? fence - 1 : fence;
  turn.add(`${who}'s fence is written`, (next) => {
    Object.assign(sidecarOf(next, who), { bound, toStore: 1 });
  });
}

function fenceNow({ world }: Turn, { epoch }: Sidecar): number {
  const fence = WRITTEN + versionOf(world, authorityAt(epoch));
  if (world.epoch === epoch) return fence;
  return (
    NEWER + EPOCHS * world.epoch + (authorityAt(world.epoch) === authorityAt(epoch) ? fence : 0)
  );
}

function gate(self: Self): void {
  const { turn, who, now } = self;
  const { has } = turn;
  if (now.connected === 0 || now.place === 0 || !isFollowerWanted(now.epoch)) return;
  const inStep = now.trusts === now.place || isWithout(self);
  if (now.gate === 0 && (inStep || !has("all live sidecars are in step")))
    turn.add(`${who} begins to open its gate`, (next) => {
      const me = sidecarOf(next, who);
      // What bound the client until now is covered by the gate's own fence.
      me.bound = me.toStore = 0;
      if (!has("the gate opens behind a fence")) me.gate = 2;
      // Were it written later, it would cover more.
      else Object.assign(me, { gate: 1, barrier: fenceNow(turn, now) });
    });
  if (now.gate === 1 && hasPassed(now.barrier, now))
    turn.add(`${who} opens its gate`, (next) => {
      Object.assign(sidecarOf(next, who), { gate: 2, barrier: 0 });
    });
}

/** What comes over the control store: the epoch, what has passed. */
function news(self: Self): void {
  const { turn, who, now } = self;
  const { world } = turn;
  if (now.linked === 0) {
    if (now.connected === 1)
      turn.add(`${who} notices that it is cut off`, (next) => notice(sidecarOf(next, who)));
    turn.add(`${who} is linked again`, (next) => (sidecarOf(next, who).linked = 1));
    return;
  }
  if (now.epoch !== world.epoch || now.connected === 0)
    turn.add(`${who} reads the state`, (next) => {
      const me = sidecarOf(next, who);
      if (me.connected === 0) {
        readPeers(self, next);
        if (turn.has("who is back says again what it stores")) doubt(next, who);
      }
      if (me.epoch !== world.epoch)
        Object.assign(me, { passed: 0, bound: 0, toStore: 0, gate: 0, barrier: 0 });
      me.epoch = world.epoch;
      me.connected = 1;
      storeEpoch(turn, next, who);
    });
  const follower = versionOf(world, 1 - authorityAt(world.epoch));
  if (now.epoch === world.epoch && now.passed < follower)
    turn.add(`${who} hears what has passed`, (next) => (sidecarOf(next, who).passed = follower));
}

export function notice(me: Sidecar): void {
  Object.assign(me, { connected: 0, gate: 0, barrier: 0 });
}

/** What the other has written into the control store. That it has heard, it says there: here the other knows at once. */
function peers(self: Self): void {
  const { turn, who, now, other } = self;
  if (now.linked === 1 && other.linked === 1 && now.hasNews === 1)
    turn.add(`${who} reads what the other tells`, (next) => readPeers(self, next));
}

function readPeers({ turn, who, now, other }: Self, next: World): void {
  if (now.hasNews === 0 || other.linked === 0) return;
  const me = sidecarOf(next, who);
  if (turn.has("a broken pledge shuts the gate")) me.gate = me.barrier = 0;
  Object.assign(me, { trusts: other.place, hasNews: 0, knowsDoubt: 1 });
}
