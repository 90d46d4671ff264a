/** What one sidecar knows. Versions count the writes; a fence is the version that it covers. */
export interface Sidecar {
  alive: number;
  /** Whether the control store can be reached, and whether this sidecar believes so. */
  linked: number;
  connected: number;
  /** The epoch it routes by, and the version that it has heard the follower to have. */
  epoch: number;
  passed: number;
  /** The generation of Redis it stores in; 0: none. */
  place: number;
  /** Reads go to the follower: 0 no, 1 when the fence has passed, 2 yes. */
  gate: number;
  /** The fence that it waits for, and the one that binds the client here: see Bound. */
  barrier: number;
  bound: number;
  /** The latter is written, and what is stored of it is still open. */
  toStore: number;
  /** Of what the other has pledged: the generation that it was last read to store in; whether there is news to read; and whether what was read is not from before the other last said that it stores nothing. */
  trusts: number;
  hasNews: number;
  knowsDoubt: number;
}

export interface World {
  /** Versions of the two sides; the epoch's authority is old while it is even. */
  old: number;
  new: number;
  epoch: number;
  /** 0 no flip, 1 all sidecars hold, 2 decided. */
  flip: number;
  /** Redis: its generation, what the two holders have stored of the client (see Mark), the newest epoch that is stored. */
  generation: number;
  marks: [number, number];
  storedEpoch: number;
  /** The client: what it has seen, and its request: 0 none, 1 asked of a side, 2 answered by the authority and not sent on. */
  seen: number;
  stage: number;
  by: number;
  side: number;
  version: number;
  /** Who took it could promise nothing then: 1 but that the authority is asked, 2 nothing at all. */
  unpromised: number;
  /** What the answer binds is stored. */
  stored: number;
  /** 1: a follower's answer, or one that says itself that it promises nothing, went back in time. */
  stale: number;
  writes: number;
  accidents: number;
  sidecars: [Sidecar, Sidecar];
}

/** Bound: 0 nothing, 1 a fence that is not written, 2 + a version: a fence, NEWER + EPOCHS × an epoch: the fence found that epoch, + 2 + a version: with the same authority. */
export const UNWRITTEN = 1;
export const WRITTEN = 2;
export const NEWER = 64;
/** Mark: 0 none, else EPOCHS × (epoch + 1), and what Bound says but open for unwritten. */
export const EPOCHS = 16;

export const authorityAt = (epoch: number) => epoch % 2;
export const versionOf = (world: World, side: number) => (side === 0 ? world.old : world.new);
/** In this phase new answers reads where old is the authority. */
export const isFollowerWanted = (epoch: number) => authorityAt(epoch) === 0;

/** Both store in the same Redis, and know that of each other. */
const SIDECAR: Sidecar = {
  alive: 1,
  linked: 1,
  connected: 1,
  epoch: 0,
  passed: 0,
  place: 1,
  gate: 0,
  barrier: 0,
  bound: 0,
  toStore: 0,
  trusts: 1,
  hasNews: 0,
  knowsDoubt: 1,
};
const WORLD: Omit<World, "marks" | "by" | "sidecars"> = {
  old: 0,
  new: 0,
  epoch: 0,
  flip: 0,
  generation: 1,
  storedEpoch: 0,
  seen: 0,
  stage: 0,
  side: 0,
  version: 0,
  unpromised: 0,
  stored: 0,
  stale: 0,
  writes: 0,
  accidents: 0,
};
const SIDECAR_KEYS = Object.keys(SIDECAR) as (keyof Sidecar)[];
const WORLD_KEYS = Object.keys(WORLD) as (keyof typeof WORLD)[];
/** Where these stand in a state. */
export const STALE = WORLD_KEYS.indexOf("stale");
export const STAGE = WORLD_KEYS.indexOf("stage");

export function initialWorld(): World {
  return { ...WORLD, by: 0, marks: [0, 0], sidecars: [{ ...SIDECAR }, { ...SIDECAR }] };
}

export function copyOf(world: World): World {
  const [one, two] = world.sidecars;
  return { ...world, marks: [...world.marks], sidecars: [{ ...one }, { ...two }] };
}

/** The world as a list of small whole numbers; of two that differ only in which sidecar is which, the same. */
export function encode(world: World): number[] {
  const numbers: number[] = [];
  for (const key of WORLD_KEYS) numbers.push(world[key]);
  const one = encodeSidecar(world, 0);
  const two = encodeSidecar(world, 1);
  const inOrder = compare(one, two) <= 0;
  numbers.push(...(inOrder ? one : two), ...(inOrder ? two : one));
  return numbers;
}

function encodeSidecar(world: World, who: number): number[] {
  const sidecar = world.sidecars[who]!;
  const numbers: number[] = [];
  for (const key of SIDECAR_KEYS) numbers.push(sidecar[key]);
  numbers.push(world.marks[who]!, world.stage > 0 && world.by === who ? 1 : 0);
  return numbers;
}

function compare(one: readonly number[], two: readonly number[]): number {
  for (let at = 0; at < one.length; at += 1) if (one[at] !== two[at]) return one[at]! - two[at]!;
  return 0;
}

export function decode(numbers: readonly number[]): World {
  const world = initialWorld();
  let at = 0;
  for (const key of WORLD_KEYS) world[key] = numbers[at++]!;
  for (const [who, sidecar] of world.sidecars.entries()) {
    for (const key of SIDECAR_KEYS) sidecar[key] = numbers[at++]!;
    world.marks[who] = numbers[at++]!;
    if (numbers[at++] === 1) world.by = who;
  }
  return world;
}
