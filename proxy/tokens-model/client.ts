import { look, lose, standing, store, storeEpoch } from "./redis.ts";
import { authorityAt, isFollowerWanted, UNWRITTEN, versionOf } from "./state.ts";
import type { Sidecar, World } from "./state.ts";
import { isPromised, isWithout, sidecarOf } from "./turn.ts";
import type { Self, Turn } from "./turn.ts";

/** One client, one request after another, each through a sidecar of its choice; and others, who write too. */
export function clientSteps(turn: Turn): void {
  const { world, bounds, add } = turn;
  const authority = authorityAt(world.epoch);
  const mayWrite = world.flip === 0 && world.writes < bounds.writes;
  if (mayWrite) add("somebody else writes", (next) => write(next, authority));
  if (world.stage !== 0) return requestSteps(selfOf(turn, world.by));
  for (const who of [0, 1]) {
    const self = selfOf(turn, who);
    if (self.now.alive === 0) continue;
    read(self);
    // Held while a flip goes on; what reaches a side that is not the authority is refused.
    if (mayWrite && authorityAt(self.now.epoch) === authority)
      add(`the client writes through ${who}`, (next) => {
        write(next, authority);
        if (turn.has("a write binds its client")) bind(self, next);
        Object.assign(next, { stage: 2, by: who, side: authority });
        next.version = versionOf(next, authority);
      });
  }
}

export function selfOf(turn: Turn, who: number): Self {
  return { turn, who, now: sidecarOf(turn.world, who), other: sidecarOf(turn.world, 1 - who) };
}

function write(next: World, side: number): void {
  next.writes += 1;
  if (side === 0) next.old += 1;
  else next.new += 1;
}

/** `Causality.mustLook`, `route`: who is to answer a read is decided at once; the side answers when it likes. */
function read(self: Self): void {
  const { turn, who, now } = self;
  let found = standing(now);
  let failed = false;
  if (mustLook(self)) {
    const looked = look(turn, turn.world, who);
    failed = looked === undefined && now.place !== 0;
    found = looked ?? "unpassed";
  }
  const isUnbound =
    typeof found === "object" &&
    isFollowerWanted(found.newer) &&
    turn.has("who follows a newer epoch promises only where nobody reads from a follower");
  turn.add(`the client reads through ${who}`, (next) => {
    if (failed) lose(next, who);
    const knew = canPromise(now) || !turn.has("what was asked of one without a promise has none");
    Object.assign(next, {
      stage: 1,
      by: who,
      side: sideFor(self, found),
      unpromised: isUnbound ? 2 : +!knew,
    });
  });
}

function mustLook({ turn, now }: Self): boolean {
  if (!turn.has("the others' tokens are asked for")) return false;
  if (now.connected === 0) return now.place !== 0 && turn.has("who is cut off asks for the epoch");
  return now.gate === 2 && standing(now) === "passed";
}

function sideFor({ now }: Self, found: ReturnType<typeof standing>): number {
  if (typeof found === "object") return found.newer;
  const authority = authorityAt(now.epoch);
  return now.gate === 2 && found === "passed" ? 1 - authority : authority;
}

/** An answer of the authority binds the client, here and for the others, before it is sent on. */
function bind(self: Self, next: World): void {
  const { turn, who, now } = self;
  const me = sidecarOf(next, who);
  const sharing = isSharing(self);
  if (now.gate > 0 || sharing) Object.assign(me, { bound: UNWRITTEN, toStore: 0 });
  if (!sharing || !turn.has("an open token is stored before the answer")) return;
  next.stored = store(turn, next, who, UNWRITTEN) ? 1 : 0;
}

/** `Causality.sharing`: a while after the last phase that needs it too, until whoever missed the news has noticed. */
function isSharing(self: Self): boolean {
  const { now, other } = self;
  const lingers = !isWithout(self) && (other.linked === 0 || other.epoch < now.epoch);
  const issuing = now.connected === 0 || isFollowerWanted(now.epoch) || lingers;
  return issuing && !(now.place === 0 && isPromised(self, false));
}

function requestSteps(self: Self): void {
  const { turn, who, now } = self;
  const { world, add } = turn;
  if (now.alive === 0) {
    add("the client's connection breaks", done);
    return;
  }
  if (world.stage === 2) {
    promiseSteps(self);
    return;
  }
  const isAuthority = world.side === authorityAt(now.epoch);
  add(`side ${world.side} answers ${who}`, (next) => {
    next.version = versionOf(world, world.side);
    if (isAuthority) {
      bind(self, next);
      next.stage = 2;
    } else answer(self, next);
  });
}

function promiseSteps(self: Self): void {
  const { turn, who } = self;
  const waits = turn.has(
    "an answer waits until its token is stored, or the others know that it is not",
  );
  if (!waits || isPromised(self, self.turn.world.stored === 1))
    turn.add(`${who} answers the client`, (next) => {
      storeEpoch(turn, next, who);
      answer(self, next);
    });
  else turn.add(`${who} answers, and says that it promises nothing`, done);
}

/** Cut off from the control store and from Redis, a sidecar knows nothing, and says that only the authority answers. */
function answer({ now }: Self, next: World): void {
  if (next.unpromised === 2) return done(next);
  if (canPromise(now) && next.unpromised === 0 && next.version < next.seen) next.stale = 1;
  next.seen = Math.max(next.seen, next.version);
  done(next);
}

const canPromise = ({ connected, place }: Sidecar) => connected === 1 || place !== 0;

function done(next: World): void {
  Object.assign(next, { stage: 0, by: 0, side: 0, version: 0, unpromised: 0, stored: 0 });
}
