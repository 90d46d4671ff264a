import { decode, encode, isIdle, STALE } from "./canonical.ts";
import { breaks, clientSteps } from "./client.ts";
import type { CookieAccident, CookieBounds, CookieRule } from "./rules.ts";
import { mayHear, notice, sidecarSteps } from "./sidecars.ts";
import { copyOf, initialWorld, NONE, ON_THE_WAY, sideAt, versionOf } from "./state.ts";
import type { World } from "./state.ts";
import { selfOf, sidecarOf, stageOf } from "./turn.ts";
import type { Turn } from "./turn.ts";

/**
 * The causal tokens in cookies (docs/decisions/causal-cookies.md) as a model to explore: one client with a cookie jar that reads and
 * writes through two sidecars as it likes, with two requests under way at once; answers that are lost, overtake each other or go on;
 * others who write, a mirror, phases, flips, a control store that may be cut off, sidecars that die or start anew. What is looked for: an
 * answer that is older than what the client had before it asked. Which token an answer gives, what it takes away and where a client
 * stands by its tokens is asked of the code itself.
 *
 * Not in it: several identities, clients outside of the share, registering, time (an unknown outcome binds for ten seconds).
 */
export function cookieModel(bounds: CookieBounds, without?: CookieRule) {
  const has = (rule: CookieRule) => rule !== without;
  const allows: Turn["allows"] = (limit) => limit === bounds.allowed;
  return {
    initial: encode(beginning(bounds), bounds),
    /** Every step that may be taken. That none is taken for long is how delays are in it. */
    next(state: readonly number[]) {
      const world = decode(state);
      const steps: { label: string; state: number[] }[] = [];
      const add: Turn["add"] = (label, change) => {
        const next = copyOf(world);
        change(next);
        steps.push({ label, state: encode(next, bounds) });
      };
      const turn: Turn = { world, bounds, has, allows, add };
      clientSteps(turn);
      for (const who of [0, 1]) sidecarSteps(selfOf(turn, who));
      phasesAndMirror(turn);
      accidents(turn);
      return steps;
    },
    wrong: (state: readonly number[]) =>
      state[STALE] === 1 ? "reads what is older than what it has seen" : undefined,
    /** The client is answered, whatever happens. */
    isGoal: (state: readonly number[]) => isIdle(state),
  };
}

function beginning({ away }: CookieBounds): World {
  const world = initialWorld();
  if (away) Object.assign(sidecarOf(world, 1), { linked: 0, connected: 0 });
  return world;
}

function phasesAndMirror(turn: Turn): void {
  const { world, bounds, add } = turn;
  if (world.old !== world.new)
    add("the mirror passes all", (next) => {
      next.old = next.new = versionOf(world, sideAt(stageOf(turn, world.stage)));
      if (!bounds.late)
        for (const who of [0, 1])
          if (mayHear(selfOf(turn, who))) sidecarOf(next, who).passed = next.old;
    });
  const then = bounds.stages[world.stage + 1];
  const isFlip = then !== undefined && then.epoch !== stageOf(turn, world.stage).epoch;
  if (world.flip > 0 || isFlip) flip(turn);
  else if (then !== undefined) add("the phase changes", (next) => (next.stage += 1));
}

function flip(turn: Turn): void {
  const { world, has, add } = turn;
  const limit = "still receives an answer when a flip ends and asks a sidecar that missed it";
  const isWaitedFor = world.exchanges.some(
    ({ isWrite, goesOn }) => goesOn === 1 && (isWrite === 1 || !turn.allows(limit)),
  );
  if (isWaitedFor) return;
  const silent = world.sidecars.filter((one) => one.alive === 1 && one.stage !== world.stage);
  if (world.flip === 0) {
    // Everybody who is live has acknowledged the hold; who has noticed that it is cut off is not waited for.
    const holds = world.sidecars.every(
      ({ linked, connected, alive, stage }) =>
        alive === 0 || connected === 0 || (linked === 1 && stage === world.stage),
    );
    if (holds) add("all hold", (next) => (next.flip = 1));
  } else if (world.flip === 1) {
    add("the flip is given up", (next) => (next.flip = 0));
    if (world.old === world.new)
      add("the flip is decided", (next) => {
        next.flip = 2;
        next.stage += 1;
      });
  } else if (silent.every((one) => one.linked === 0)) {
    // The lease is over: nobody holds any more, whoever has not heard why included.
    add("the hold ends", (next) => {
      next.flip = 0;
      for (const one of next.sidecars)
        if (one.stage !== next.stage && has("a hold that ends at its deadline cuts off"))
          notice(one);
    });
  }
}

function accidents(turn: Turn): void {
  const { world, bounds, add } = turn;
  for (const [at, kind] of bounds.accidents.entries()) {
    const bit = 1 << at;
    if ((world.accidents & bit) !== 0) continue;
    for (const who of [0, 1])
      happens(turn, kind, who, (label, change) =>
        add(label, (next) => {
          next.accidents |= bit;
          change(next);
        }),
      );
  }
  if (turn.allows("forgets some of its tokens and keeps others"))
    for (const [place, token] of world.jar.entries())
      if (token !== 0) add("the client forgets a token", (next) => (next.gone |= 1 << place));
}

function happens(turn: Turn, kind: CookieAccident, who: number, accident: Turn["add"]): void {
  const { alive, linked } = sidecarOf(turn.world, who);
  if (alive === 0) return;
  if (kind === "death") accident(`${who} dies`, (next) => (sidecarOf(next, who).alive = 0));
  if (kind === "cut" && linked === 1)
    accident(`${who} is cut off from the control store`, (next) => {
      sidecarOf(next, who).linked = 0;
    });
  if (kind === "restart") accident(`${who} is started again`, (next) => restart(turn, next, who));
}

/** It goes by what its disk remembers until it has read the control store. */
function restart(turn: Turn, next: World, who: number): void {
  for (const [at, exchange] of next.exchanges.entries())
    if (exchange.at !== NONE && exchange.at !== ON_THE_WAY && exchange.by === who)
      breaks(turn, next, at);
  const me = sidecarOf(next, who);
  notice(me);
  me.passed = me.bound = 0;
}
