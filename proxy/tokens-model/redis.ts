import { authorityAt, EPOCHS, NEWER, UNWRITTEN, WRITTEN } from "./state.ts";
import type { Sidecar, World } from "./state.ts";
import { sidecarOf } from "./turn.ts";
import type { Turn } from "./turn.ts";

/** What binds a client, as read from a mark or known by oneself. */
export type Standing = "passed" | "unpassed" | { readonly newer: number };

/** Stores what a sidecar says of the client. False: this is not the Redis that it knows; it stores nothing from now on. */
export function store({ has }: Turn, next: World, who: number, bound: number): boolean {
  const me = sidecarOf(next, who);
  if (me.place === 0) return false;
  if (me.place !== next.generation && has("a generation is checked in the same step")) {
    lose(next, who);
    return false;
  }
  const field = has("each holder has a field of its own") ? who : 0;
  if (bound >= NEWER)
    next.marks[field] =
      EPOCHS * (epochFound(bound) + 1) + Math.max(WRITTEN, (bound - NEWER) % EPOCHS);
  else next.marks[field] = EPOCHS * (me.epoch + 1) + bound;
  return true;
}

export function storeEpoch({ has }: Turn, next: World, who: number): void {
  const me = sidecarOf(next, who);
  if (me.place !== next.generation || !has("each epoch's authority is stored")) return;
  next.storedEpoch = Math.max(next.storedEpoch, me.epoch);
}

/** Redis is away from a sidecar, or another one: it says so to the other, and its own reads leave the follower. */
export function lose(next: World, who: number): void {
  const me = sidecarOf(next, who);
  if (me.place === 0) return;
  me.place = me.gate = me.barrier = 0;
  doubt(next, who);
}

/** Whatever it has pledged before counts for nothing until the other has heard what it says now. */
export function doubt(next: World, who: number): void {
  Object.assign(sidecarOf(next, 1 - who), { hasNews: 1, knowsDoubt: 0 });
}

/** Takes part in the Redis there is. */
export function adopt(next: World, who: number): void {
  sidecarOf(next, who).place = next.generation;
  sidecarOf(next, 1 - who).hasNews = 1;
}

/** What all sidecars have stored of the client; undefined: this is not the Redis that the sidecar knows. */
export function look({ has }: Turn, world: World, who: number): Standing | undefined {
  const me = sidecarOf(world, who);
  const checked = has("a generation is checked in the same step");
  if (me.place === 0 || (checked && me.place !== world.generation)) return undefined;
  const newest = Math.max(
    world.storedEpoch,
    ...world.marks.map((mark) => Math.floor(mark / EPOCHS) - 1),
  );
  if (newest > me.epoch && has("a newer epoch's token is followed"))
    return { newer: authorityAt(newest) };
  const openBinds = has("an open token of an older epoch binds");
  const binds = world.marks.some((mark) => {
    if (openBinds && mark % EPOCHS === UNWRITTEN) return true;
    return Math.floor(mark / EPOCHS) - 1 === me.epoch && !hasPassed(mark % EPOCHS, me);
  });
  return binds ? "unpassed" : "passed";
}

/** What a sidecar knows of the client by itself. */
export function standing(me: Sidecar): Standing {
  if (me.bound >= NEWER) return { newer: authorityAt(epochFound(me.bound)) };
  return me.bound === 0 || hasPassed(me.bound, me) ? "passed" : "unpassed";
}

/** The epoch that a fence found which was asked for in an earlier one. */
const epochFound = (bound: number) => Math.floor((bound - NEWER) / EPOCHS);

export function hasPassed(bound: number, me: Sidecar): boolean {
  return bound !== UNWRITTEN && bound < NEWER && bound - WRITTEN <= me.passed;
}
