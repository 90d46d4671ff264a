import { endSync } from "./mirror.ts";
import {
  AT,
  BACKUP,
  BACKUP_OF,
  BACKUP_SIZE,
  base,
  CONTROLLER,
  CONTROLLER_SIZE,
  EPOCH,
  FLUSHED_EPOCH,
  FLUSHED_GUARD,
  GUARD,
  LEFT_BEHIND,
  NUMBER_OF_WRITE,
  of,
  OWNER,
  PHASE,
  place,
  SIDE,
  SIDES,
  STRAY,
  WRITER,
  WRITER_SIZE,
} from "./state.ts";
import type { Turn } from "./turn.ts";

const RESTORED = 3;
/** Where an attempt, or a recovery, works with sessions that it never opens again. */
const ONE_SESSION = [
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
  "raise",
  "raise-half",
  "read",
].map((name) => place(name as Parameters<typeof place>[0]));

/** A backup of a side is taken, and whenever the side is closed it may be set back to it. */
export function backups({ state, bounds, add }: Turn): void {
  for (const side of SIDES) {
    if (state[BACKUP_OF] === 0 && bounds.restores === "from any time")
      add(`a backup of ${side} is taken`, (next) => backUp(next, side));
    const isFollower = of(state, side, GUARD) === 1 && of(state, 1 - side, GUARD) === 0;
    if (state[BACKUP_OF] === 1 + side && isFollower)
      add(`${side} is restored`, (next) => restore(next, side));
  }
}

/** What is on its disk. */
export function backUp(next: number[], side: number): void {
  for (let i = 0; i < BACKUP_SIZE; i += 1) next[BACKUP + i] = of(next, side, i);
  next[BACKUP + EPOCH] = of(next, side, FLUSHED_EPOCH);
  next[BACKUP + GUARD] = of(next, side, FLUSHED_GUARD);
  next[BACKUP_OF] = 1 + side;
}

/** It takes longer than a transaction of a flip or a sync may be open, and ends every session on its side. */
function restore(next: number[], side: number): void {
  for (let i = 0; i < BACKUP_SIZE; i += 1) next[base(side) + i] = next[BACKUP + i]!;
  next.fill(0, BACKUP, BACKUP + BACKUP_SIZE);
  next[BACKUP_OF] = RESTORED;
  // Closed, it may still be opened by who has slept since the backup, until a recovery raises the attempt on it.
  if (of(next, side, GUARD) === 0 || of(next, side, EPOCH) < of(next, 1 - side, EPOCH))
    next[LEFT_BEHIND] = 1 + side;
  for (const each of SIDES) next[base(each) + OWNER] = 0;
  endSync(next);
  for (const c of [CONTROLLER, CONTROLLER + CONTROLLER_SIZE])
    if (ONE_SESSION.includes(next[c + AT]!)) next[c + AT] = place("failed");
  for (const at of [WRITER, WRITER + WRITER_SIZE]) {
    if (next[at + PHASE] === 0 || next[at + SIDE] !== side) continue;
    if (next[at + PHASE]! >= 2) next[STRAY]! |= 1 << next[at + NUMBER_OF_WRITE]!;
    next[at + PHASE] = next[at + SIDE] = next[at + NUMBER_OF_WRITE] = 0;
  }
}
