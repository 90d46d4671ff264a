import type { Stage } from "./rules.ts";
import { sideOf } from "./tokens.ts";

/** What one sidecar knows. Versions count the writes; a fence covers a version. */
export interface Sidecar {
  alive: number;
  /** Whether the control store can be reached, and whether this sidecar believes so. */
  linked: number;
  connected: number;
  /** The stage it routes by; the one since which it counts on tokens of the other; and since which it has always been told in time. */
  stage: number;
  since: number;
  unbroken: number;
  /** The version that it has heard the follower to have. */
  passed: number;
  /** Reads go to the follower: 0 no, 1 when the fence has passed, 2 yes. */
  gate: number;
  /** The fence that it waits for, and the one that binds the client here. */
  barrier: number;
  bound: number;
  /** What the client wrote here and got no answer for. */
  owed: number;
}

/** A request of the client. */
export interface Exchange {
  at: number;
  by: number;
  isWrite: number;
  side: number;
  /** 1: it follows a newer epoch than its sidecar's; UNPROMISED: its answer says that it is no promise. */
  follows: number;
  /** A fence was asked for after this write. */
  fenced: number;
  /** What the client had seen when it asked; what the answer shows. */
  floor: number;
  version: number;
  /** The fence that an open token is redeemed by. */
  redeemed: number;
  /** What it carries, and what its answer takes away: a bit for each place in the jar. */
  carried: number;
  takes: number;
  /** What the answer gives. */
  token: number;
  goesOn: number;
}

/** Where a request is. */
export const NONE = 0;
export const REDEEMING = 1;
export const ASKED = 2;
export const SETTLING = 3;
export const ON_THE_WAY = 4;
export const COMING = 5;

export const UNPROMISED = 2;

export interface World {
  /** Versions of the two sides. */
  old: number;
  new: number;
  stage: number;
  /** 0 no flip, 1 all sidecars hold, 2 decided. */
  flip: number;
  /** What the client has seen. */
  seen: number;
  /** 1: an answer went back in time. */
  stale: number;
  writes: number;
  accidents: number;
  /** The client's tokens; those that are gone stay for as long as a request carries them. */
  jar: number[];
  gone: number;
  exchanges: [Exchange, Exchange];
  sidecars: [Sidecar, Sidecar];
}

export const PLACES = 5;
const SIDECAR: Sidecar = {
  alive: 1,
  linked: 1,
  connected: 1,
  stage: 0,
  since: 0,
  unbroken: 0,
  passed: 0,
  gate: 0,
  barrier: 0,
  bound: 0,
  owed: 0,
};
const EXCHANGE: Exchange = {
  at: NONE,
  by: 0,
  isWrite: 0,
  side: 0,
  follows: 0,
  fenced: 0,
  floor: 0,
  version: 0,
  redeemed: 0,
  carried: 0,
  takes: 0,
  token: 0,
  goesOn: 0,
};
const WORLD = { old: 0, new: 0, stage: 0, flip: 0, seen: 0, stale: 0, writes: 0, accidents: 0 };
export const SIDECAR_KEYS = Object.keys(SIDECAR) as (keyof Sidecar)[];
export const EXCHANGE_KEYS = Object.keys(EXCHANGE) as (keyof Exchange)[];
export const WORLD_KEYS = Object.keys(WORLD) as (keyof typeof WORLD)[];

export const sideAt = (stage: Stage) => sideOf(stage.epoch);
export const versionOf = (world: World, side: number) => (side === 0 ? world.old : world.new);

export function initialWorld(): World {
  return {
    ...WORLD,
    jar: Array.from<number>({ length: PLACES }).fill(0),
    gone: 0,
    exchanges: [{ ...EXCHANGE }, { ...EXCHANGE }],
    sidecars: [{ ...SIDECAR }, { ...SIDECAR }],
  };
}

export function copyOf(world: World): World {
  const { jar, exchanges, sidecars } = world;
  return {
    ...world,
    jar: [...jar],
    exchanges: [{ ...exchanges[0] }, { ...exchanges[1] }],
    sidecars: [{ ...sidecars[0] }, { ...sidecars[1] }],
  };
}

export function end(exchange: Exchange): void {
  Object.assign(exchange, EXCHANGE);
}

/** A place for a new token: nobody has it, and no request carries what was there. */
export function freePlace({ jar }: World): number {
  const place = jar.indexOf(0);
  if (place === -1) throw new Error("more tokens at once than the model has room for");
  return place;
}
