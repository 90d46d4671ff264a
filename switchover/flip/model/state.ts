/**
 * What a state of the model is made of: one list of small whole numbers, so that millions fit into memory. Here is which
 * number is what, and what is read from several of them.
 */
export type State = readonly number[];

// A side: SIZE numbers, from 0 for old, from SIZE for new.
export const EPOCH = 0; // committed; even: the old side's turn
export const FLUSHED_EPOCH = 1;
export const ATTEMPT = 2;
export const TARGET = 3; // the attempt's epoch
export const ENDED = 4;
export const GUARD = 5; // 0 open, 1 closed: as everybody sees it at once
export const FLUSHED_GUARD = 6;
export const ARMED = 7;
export const FENCE = 8; // the last one written to its log
export const POSITION = 9; // the last one of the other side's that was passed here
export const POSITION_EPOCH = 10; // the epoch it was passed in
export const DATA = 11; // which writes it has, a bit for each
export const OWNER = 12; // 1 + the controller whose transaction holds its row
const SIZE = 13;
// The writers: three numbers each.
export const WRITER = 2 * SIZE;
export const WRITER_SIZE = 3;
export const PHASE = 0; // 0 none, 1 has looked at the guard, 2 wrote under the guard, 3 wrote unguarded
export const SIDE = 1;
export const NUMBER_OF_WRITE = 2;
// The mirror.
export const MIRROR = WRITER + 2 * WRITER_SIZE;
export const SYNCING = 0; // 0 no, 1 has read and not committed, 2 has checked and not read
export const SYNC_EPOCH = 1;
export const SYNC_DATA = 2;
export const SYNC_FENCE = 3;
// The controllers: six numbers each.
export const CONTROLLER = MIRROR + 4;
export const CONTROLLER_SIZE = 6;
export const AT = 0; // where it is in its work: an index of PLACES
export const NUMBER = 1;
export const TO_EPOCH = 2;
export const WANTED = 3; // the fence it waits for; in a recovery: 1 + whether it is decided
export const SEEN = 4; // the attempt it found
export const CHECKED = 5; // it has checked a row and not changed it yet
export const WRITES = CONTROLLER + 2 * CONTROLLER_SIZE;
export const ACCIDENTS = WRITES + 1;
export const BROKEN = WRITES + 2; // 1: an attempt was called undone whose guard is closed
export const UNDONE = WRITES + 3; // the highest attempt that was called undone
// A backup of a side, and what came of it.
export const BACKUP = WRITES + 4; // a side's numbers but OWNER, as they were
export const BACKUP_SIZE = OWNER;
export const BACKUP_OF = BACKUP + BACKUP_SIZE; // 0 there is none, 1 + the side, 3 it was restored
export const LEFT_BEHIND = BACKUP_OF + 1; // 1 + the side that a restore brought back open or an epoch behind, until it follows
export const STRAY = BACKUP_OF + 2; // the writes that such a side has taken, or forgot unacknowledged: nobody knows of them
const LENGTH = BACKUP_OF + 3;

/** Where a controller is: what it does next. */
export const PLACES = [
  "idle",
  "begin-half",
  "arm",
  "early-fence",
  "guard",
  "fence",
  "wait",
  "switch",
  "close",
  "decide",
  "follow",
  "open",
  "end",
  "end-half",
  "disarm",
  "failed",
  "raise",
  "raise-half",
  "read",
  "undo",
  "undo-half",
  "undo-disarm",
  "close-again",
  "arm-again",
  "turn-again",
  "switch-again",
  "gone",
] as const;
export type Place = (typeof PLACES)[number];

export const OLD = 0;
export const NEW = 1;
export const SIDES = [OLD, NEW] as const;
export const base = (side: number) => side * SIZE;
export const place = (name: Place) => PLACES.indexOf(name);
export const authorityAt = (epoch: number) => epoch % 2;
/** One of a side's numbers. */
export const of = (state: State, side: number, field: number) => state[base(side) + field]!;

/** Settled, with the old side the authority. */
export function initialState(followerIsArmed: boolean): number[] {
  const state = Array.from({ length: LENGTH }, () => 0);
  state[base(OLD) + ENDED] = 1;
  state[base(NEW) + ENDED] = 1;
  state[base(NEW) + GUARD] = 1;
  state[base(NEW) + FLUSHED_GUARD] = 1;
  state[base(NEW) + ARMED] = followerIsArmed ? 1 : 0;
  return state;
}

/** A commit that is flushed flushes what a `setval` before it did. */
export function flush(next: number[], side: number): void {
  next[base(side) + FLUSHED_GUARD] = of(next, side, GUARD);
  next[base(side) + FLUSHED_EPOCH] = of(next, side, EPOCH);
}

export function newestAttempt(state: State): number {
  return Math.max(of(state, OLD, ATTEMPT), of(state, NEW, ATTEMPT));
}

/** Whether somebody's write to a side is in this phase. */
export function writesIn(state: State, side: number, phase: number): boolean {
  return [0, 1].some((writer) => {
    const at = WRITER + writer * WRITER_SIZE;
    return state[at + PHASE] === phase && state[at + SIDE] === side;
  });
}

export function syncsTo(state: State, side: number): boolean {
  return state[MIRROR + SYNCING] === 1 && authorityAt(state[MIRROR + SYNC_EPOCH]!) !== side;
}

/** Where the transaction that holds a side's row leads to: it is the one on the authority, or the one on the other side. */
export function ownerLeadsTo(state: State, side: number): number | undefined {
  const owner = of(state, side, OWNER);
  if (owner === 0) return undefined;
  return authorityAt(state[CONTROLLER + (owner - 1) * CONTROLLER_SIZE + TO_EPOCH]!);
}

/** As `isDecided` of flip-decide.ts has it. */
export function isDecided(state: State, target: number): boolean {
  const to = authorityAt(target);
  const reached = (epoch: number) => epoch >= target && authorityAt(epoch) === to;
  return SIDES.some((side) => reached(of(state, side, EPOCH))) || of(state, 1 - to, GUARD) === 1;
}

/** As `examine` of flip-decide.ts has it. */
export function isSettled(state: State): boolean {
  const agree = [ATTEMPT, EPOCH].every((field) => of(state, OLD, field) === of(state, NEW, field));
  if (!agree || SIDES.some((side) => of(state, side, ENDED) !== 1)) return false;
  const authority = authorityAt(of(state, OLD, EPOCH));
  return of(state, authority, GUARD) === 0 && of(state, 1 - authority, GUARD) === 1;
}
