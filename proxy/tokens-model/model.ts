import { clientSteps, selfOf } from "./client.ts";
import { lose } from "./redis.ts";
import type { Accident, TokenBounds, TokenRule } from "./rules.ts";
import { notice, sidecarSteps } from "./sidecars.ts";
import {
  authorityAt,
  copyOf,
  decode,
  encode,
  initialWorld,
  STAGE,
  STALE,
  versionOf,
} from "./state.ts";
import type { Sidecar, World } from "./state.ts";
import { sidecarOf } from "./turn.ts";
import type { Turn } from "./turn.ts";

/**
 * The causal tokens in Redis (docs/decisions/redis-tokens.md) as a model to explore: one client that reads and writes through two
 * sidecars as it likes, others who write, a mirror, flips, a control store that loses nothing but may be cut off, a Redis that
 * forgets or is cut off, and sidecars that die. What is looked for: an answer that is older than one the client had before it asked.
 *
 * Not in it: answers that go on, unknown outcomes, several identities, registering, time that Redis forgets by itself.
 */
export function tokenModel(bounds: TokenBounds, without?: TokenRule) {
  const has = (rule: TokenRule) => rule !== without;
  return {
    initial: encode(beginning(bounds)),
    /** Every step that may be taken. That none is taken for long is how delays are in it. */
    next(state: readonly number[]) {
      const world = decode(state);
      const steps: { label: string; state: number[] }[] = [];
      const add: Turn["add"] = (label, change) => {
        const next = copyOf(world);
        change(next);
        steps.push({ label, state: encode(next) });
      };
      const turn: Turn = { world, bounds, has, add };
      clientSteps(turn);
      for (const who of [0, 1]) sidecarSteps(selfOf(turn, who));
      flipAndMirror(turn);
      accidents(turn);
      return steps;
    },
    wrong: (state: readonly number[]) =>
      state[STALE] === 1 ? "reads what is older than what it has seen" : undefined,
    /** The client is answered, whatever happens. */
    isGoal: (state: readonly number[]) => state[STAGE] === 0,
  };
}

function beginning({ away, missed = 0, from = missed }: TokenBounds): World {
  const world = initialWorld();
  const [one, two] = world.sidecars;
  world.epoch = world.storedEpoch = one.epoch = from;
  two.epoch = from - missed;
  if (away !== undefined) two.linked = two.connected = 0;
  if (away === "both") two.place = one.trusts = 0;
  return world;
}

function flipAndMirror({ world, bounds, has, add }: Turn): void {
  const authority = authorityAt(world.epoch);
  const newest = versionOf(world, authority);
  if (world.old !== world.new)
    add("the mirror passes all", (next) => (next.old = next.new = newest));
  const silent = world.sidecars.filter((one) => one.alive === 1 && one.epoch !== world.epoch);
  if (world.flip === 0) {
    // Everybody who is live has acknowledged the hold; who has noticed that it is cut off is not waited for.
    const holds = world.sidecars.every(
      (one) => one.linked === 1 || one.connected === 0 || one.alive === 0,
    );
    if (holds && world.epoch < bounds.epochs) add("all hold", (next) => (next.flip = 1));
  } else if (world.flip === 1) {
    add("the flip is given up", (next) => (next.flip = 0));
    if (world.old === world.new)
      add("the flip is decided", (next) => {
        next.flip = 2;
        next.epoch += 1;
      });
  } else if (silent.every((one) => one.linked === 0)) {
    // The lease is over: nobody holds any more, whoever has not heard why included.
    add("the hold ends", (next) => {
      next.flip = 0;
      for (const one of next.sidecars)
        if (one.epoch !== next.epoch && has("a hold that ends at its deadline cuts off"))
          notice(one);
    });
  }
}

function accidents({ world, bounds, add }: Turn): void {
  for (const [at, kind] of bounds.accidents.entries()) {
    const bit = 1 << at;
    if ((world.accidents & bit) !== 0) continue;
    const accident: Turn["add"] = (label, change) =>
      add(label, (next) => {
        next.accidents |= bit;
        change(next);
      });
    if (kind === "flush")
      accident("Redis forgets everything", (next) => {
        next.generation += 1;
        next.marks = [0, 0];
        next.storedEpoch = 0;
      });
    else for (const who of [0, 1]) happens(kind, sidecarOf(world, who), who, accident);
  }
}

function happens(
  kind: Accident,
  { alive, linked, place }: Sidecar,
  who: number,
  accident: Turn["add"],
): void {
  if (alive === 0) return;
  if (kind === "death") accident(`${who} dies`, (next) => (sidecarOf(next, who).alive = 0));
  if (kind === "cut" && linked === 1)
    accident(`${who} is cut off from the control store`, (next) => {
      sidecarOf(next, who).linked = 0;
    });
  if (kind === "loss" && place !== 0) accident(`${who} loses Redis`, (next) => lose(next, who));
}
