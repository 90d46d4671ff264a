import {
  ARMED,
  base,
  DATA,
  GUARD,
  LEFT_BEHIND,
  NUMBER_OF_WRITE,
  of,
  ownerLeadsTo,
  PHASE,
  SIDE,
  SIDES,
  STRAY,
  WRITER,
  WRITER_SIZE,
  WRITES,
} from "./state.ts";
import type { State } from "./state.ts";
import type { Turn } from "./turn.ts";

/**
 * A writer is a sidecar that routes by what it knew at any time, or somebody who bypasses them all: it turns to either side
 * whenever it likes. So holds that end early, lost messages, partitions and stale sidecars need no state of their own.
 */
export function writerSteps(turn: Turn, writer: number): void {
  const { state, add } = turn;
  const at = WRITER + writer * WRITER_SIZE;
  const phase = state[at + PHASE]!;
  const side = state[at + SIDE]!;
  if (phase === 0) {
    for (const to of SIDES) beginWrite(turn, writer, to);
  } else if (phase === 1) {
    if (!guardIsTaken(turn, side) && state[WRITES]! < turn.bounds.writes)
      add(`writer ${writer} writes to ${side} by what it saw`, (next) => write(next, at, side, 2));
  } else {
    add(`writer ${writer} commits on ${side}`, (next) => {
      next[base(side) + DATA]! |= 1 << state[at + NUMBER_OF_WRITE]!;
      next[at + PHASE] = next[at + SIDE] = next[at + NUMBER_OF_WRITE] = 0;
    });
  }
}

function beginWrite({ state, bounds, has, add }: Turn, writer: number, side: number): void {
  if (state[WRITES]! >= bounds.writes) return;
  const at = WRITER + writer * WRITER_SIZE;
  if (of(state, side, ARMED) === 0) {
    add(`writer ${writer} writes to ${side}, unguarded`, (next) => write(next, at, side, 3));
    return;
  }
  if (of(state, side, GUARD) === 1) return;
  const seesTheLatest = has("the guard's state is seen whatever the snapshot");
  if (has("a writer locks before it reads the guard") && seesTheLatest) {
    if (!guardIsTaken({ state, has }, side))
      add(`writer ${writer} writes to ${side}`, (next) => write(next, at, side, 2));
    return;
  }
  add(`writer ${writer} looks at the guard of ${side}`, (next) => {
    next[at + PHASE] = 1;
    next[at + SIDE] = side;
  });
}

function write(next: number[], at: number, side: number, phase: number): void {
  next[at + PHASE] = phase;
  next[at + SIDE] = side;
  next[at + NUMBER_OF_WRITE] = next[WRITES]!;
  if (next[LEFT_BEHIND] === 1 + side) next[STRAY]! |= 1 << next[WRITES]!;
  next[WRITES]! += 1;
}

/** The transaction of a flip on the authority holds the guard's lock. */
function guardIsTaken({ state, has }: Pick<Turn, "state" | "has">, side: number): boolean {
  if (!has("the guard's lock is held until the decision")) return false;
  return ownerLeadsTo(state, side) === 1 - side;
}

/** Bits of the writes that are not acknowledged: they may still come to nothing. */
export function inFlight(state: State): number {
  let bits = 0;
  for (const writer of [0, 1]) {
    const at = WRITER + writer * WRITER_SIZE;
    if (state[at + PHASE]! >= 2) bits |= 1 << state[at + NUMBER_OF_WRITE]!;
  }
  return bits;
}
