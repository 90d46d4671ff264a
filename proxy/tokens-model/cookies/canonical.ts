import type { CookieBounds } from "./rules.ts";
import {
  EXCHANGE_KEYS,
  initialWorld,
  NONE,
  ON_THE_WAY,
  PLACES,
  SETTLING,
  SIDECAR_KEYS,
  WORLD_KEYS,
} from "./state.ts";
import type { Exchange, World } from "./state.ts";
import { standingHere, viewOf } from "./tokens.ts";

/** The world as a list of small whole numbers; of those that differ in nothing that matters from here on, one. */
export function encode(world: World, bounds: CookieBounds): number[] {
  // Whoever is asked from now on has everything.
  if (world.old === world.new && world.writes === bounds.writes && world.stale === 0)
    return numbersOf({ ...initialWorld(), old: world.old, new: world.new, writes: world.writes });
  forget(world, bounds);
  tidy(world);
  return numbersOf(world);
}

/** What both sides have can be missed by nobody; what has passed binds nobody. */
function forget(world: World, { stages }: CookieBounds): void {
  const common = Math.min(world.old, world.new);
  const left = (version: number, from = common) => (version > from ? version : 0);
  world.seen = left(world.seen);
  for (const exchange of world.exchanges) {
    exchange.floor = left(exchange.floor);
    exchange.version = left(exchange.version);
    const isOver = exchange.at === ON_THE_WAY && exchange.goesOn === 0;
    if (isOver) exchange.side = 0;
  }
  for (const [who, sidecar] of world.sidecars.entries()) {
    sidecar.owed = left(sidecar.owed, Math.max(common, world.seen));
    const settles = world.exchanges.some(({ at, by }) => at === SETTLING && by === who);
    if (settles || sidecar.bound === 0) continue;
    const view = viewOf(stages[sidecar.stage]!.epoch, sidecar.passed);
    if (standingHere(sidecar.bound, view) === "passed") sidecar.bound = 0;
  }
}

/** Forgets what is gone and not carried any more, and of two tokens that are the same and carried by the same, one. */
function tidy(world: World): void {
  const { jar, exchanges } = world;
  const [one, two] = exchanges;
  const masks = one.carried | two.carried;
  world.gone &= jar.reduce((bits, token, place) => (token === 0 ? bits : bits | (1 << place)), 0);
  for (let place = 0; place < PLACES; place += 1) {
    if (jar[place] === 0) continue;
    const bit = 1 << place;
    const isGone = (world.gone & bit) !== 0;
    const isSame = (other: number) =>
      jar[other] === jar[place] &&
      has(one.carried, other) === has(one.carried, place) &&
      has(two.carried, other) === has(two.carried, place) &&
      has(world.gone, other) === isGone;
    const twin = jar.findIndex((_, other) => other < place && isSame(other));
    if (twin === -1 && !(isGone && (masks & bit) === 0)) continue;
    jar[place] = 0;
    world.gone &= ~bit;
    for (const exchange of exchanges) {
      exchange.carried &= ~bit;
      exchange.takes &= ~bit;
    }
  }
}

const has = (mask: number, place: number) => (mask & (1 << place)) !== 0;

function numbersOf(world: World): number[] {
  const numbers: number[] = [];
  for (const key of WORLD_KEYS) numbers.push(world[key]);
  const swapped = compareSidecars(world) > 0;
  for (const who of swapped ? [1, 0] : [0, 1])
    for (const key of SIDECAR_KEYS) numbers.push(world.sidecars[who]![key]);
  const [one, two] = world.exchanges;
  const exchanges = compareExchanges(one, two) > 0 ? [two, one] : [one, two];
  const order = orderOf(world, exchanges);
  const moved = (mask: number) => {
    let bits = 0;
    if (mask !== 0)
      for (const [at, place] of order.entries()) if (has(mask, place)) bits |= 1 << at;
    return bits;
  };
  for (const exchange of exchanges)
    for (const key of EXCHANGE_KEYS) {
      const value = exchange[key];
      if (key === "by") numbers.push(swapped && exchange.at !== NONE ? 1 - value : value);
      else numbers.push(key === "carried" || key === "takes" ? moved(value) : value);
    }
  for (const place of order) numbers.push(world.jar[place]!);
  numbers.push(moved(world.gone));
  return numbers;
}

/** More than 0: they are the other way round. */
function compareSidecars({ sidecars: [one, two], exchanges }: World): number {
  for (const key of SIDECAR_KEYS) if (one[key] !== two[key]) return one[key] - two[key];
  for (const { at, by } of exchanges) if (at !== NONE) return by;
  return 0;
}

function compareExchanges(one: Exchange, two: Exchange): number {
  for (const key of EXCHANGE_KEYS)
    if (key !== "carried" && key !== "takes" && one[key] !== two[key]) return two[key] - one[key];
  return 0;
}

/** The places of the jar, by what is there and who carries it. */
function orderOf({ jar, gone }: World, exchanges: readonly Exchange[]): number[] {
  const [one, two] = exchanges;
  const keys = jar.map(
    (token, place) =>
      (((token * 2 + +has(gone, place)) * 2 + +has(one!.carried, place)) * 2 +
        +has(two!.carried, place)) *
        PLACES +
      place,
  );
  return keys.toSorted((a, b) => b - a).map((key) => key % PLACES);
}

export function decode(numbers: readonly number[]): World {
  const world = initialWorld();
  let at = 0;
  for (const key of WORLD_KEYS) world[key] = numbers[at++]!;
  for (const sidecar of world.sidecars)
    for (const key of SIDECAR_KEYS) sidecar[key] = numbers[at++]!;
  for (const exchange of world.exchanges)
    for (const key of EXCHANGE_KEYS) exchange[key] = numbers[at++]!;
  for (const place of world.jar.keys()) world.jar[place] = numbers[at++]!;
  world.gone = numbers[at]!;
  return world;
}

/** Where it stands in a state. */
export const STALE = WORLD_KEYS.indexOf("stale");
const FIRST_EXCHANGE = WORLD_KEYS.length + 2 * SIDECAR_KEYS.length + EXCHANGE_KEYS.indexOf("at");

/** No request is under way. The first is, if one is. */
export const isIdle = (numbers: readonly number[]) => numbers[FIRST_EXCHANGE] === NONE;
