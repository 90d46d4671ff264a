import {
  AT,
  ATTEMPT,
  authorityAt,
  BACKUP,
  BACKUP_OF,
  base,
  CONTROLLER,
  CONTROLLER_SIZE,
  FENCE,
  MIRROR,
  NUMBER,
  of,
  OWNER,
  PLACES,
  POSITION,
  SEEN,
  SIDES,
  SYNC_EPOCH,
  SYNC_FENCE,
  TO_EPOCH,
  UNDONE,
  WANTED,
  WRITER,
  WRITER_SIZE,
} from "./state.ts";
import type { State } from "./state.ts";

/**
 * Of states that differ only in who is who, or in numbers of which only the order matters, one: so that there is an end to
 * attempts and fences, and half as many states.
 */
export function canonical(state: number[]): number[] {
  if (swaps(state, WRITER, WRITER_SIZE)) swap(state, WRITER, WRITER_SIZE);
  if (swaps(state, CONTROLLER, CONTROLLER_SIZE)) {
    swap(state, CONTROLLER, CONTROLLER_SIZE);
    for (const side of SIDES) {
      const owner = of(state, side, OWNER);
      if (owner !== 0) state[base(side) + OWNER] = 3 - owner;
    }
  }
  rank(state, ATTEMPTS);
  for (const side of SIDES) rank(state, fencesOf(state, side));
  return state;
}

const ATTEMPTS = [
  ...SIDES.map((side) => base(side) + ATTEMPT),
  UNDONE,
  BACKUP + ATTEMPT,
  ...[0, CONTROLLER_SIZE].flatMap((at) => [CONTROLLER + at + NUMBER, CONTROLLER + at + SEEN]),
];

/** Where a number of a fence of this side's log stands. */
function fencesOf(state: State, side: number): number[] {
  const places = [base(side) + FENCE, base(1 - side) + POSITION];
  if (state[BACKUP_OF] === 1 + side) places.push(BACKUP + FENCE);
  if (state[BACKUP_OF] === 2 - side) places.push(BACKUP + POSITION);
  if (authorityAt(state[MIRROR + SYNC_EPOCH]!) === side) places.push(MIRROR + SYNC_FENCE);
  for (const c of [CONTROLLER, CONTROLLER + CONTROLLER_SIZE]) {
    const place = PLACES[state[c + AT]!]!;
    const waits = place === "guard" || place === "wait";
    if (waits && authorityAt(state[c + TO_EPOCH]!) !== side) places.push(c + WANTED);
  }
  return places;
}

/** The lowest that is more than 0 becomes 1, the next 2. */
function rank(state: number[], places: readonly number[]): void {
  let next = 0;
  for (let floor = 0; ; next += 1) {
    // Those that are ranked already are not above the floor.
    let lowest = Number.POSITIVE_INFINITY;
    for (const at of places) if (state[at]! > floor && state[at]! < lowest) lowest = state[at]!;
    if (lowest === Number.POSITIVE_INFINITY) return;
    for (const at of places) if (state[at] === lowest) state[at] = next + 1;
    floor = Math.max(lowest, next + 1);
  }
}

function swaps(state: State, at: number, size: number): boolean {
  for (let i = at; i < at + size; i += 1)
    if (state[i] !== state[i + size]) return state[i]! > state[i + size]!;
  return false;
}

function swap(state: number[], at: number, size: number): void {
  for (let i = at; i < at + size; i += 1)
    [state[i], state[i + size]] = [state[i + size]!, state[i]!];
}
