import {
  authorityAt,
  base,
  DATA,
  EPOCH,
  FENCE,
  MIRROR,
  NEW,
  of,
  OLD,
  ownerLeadsTo,
  POSITION,
  POSITION_EPOCH,
  SYNC_DATA,
  SYNC_EPOCH,
  SYNC_FENCE,
  SYNCING,
} from "./state.ts";
import type { Turn } from "./turn.ts";

/** One sync at a time, of everything: it takes the direction lock, checks the epoch, reads, and commits whenever it likes. */
export function mirrorSteps(turn: Turn): void {
  const { state, add } = turn;
  const epoch = state[MIRROR + SYNC_EPOCH]!;
  const source = authorityAt(epoch);
  const target = 1 - source;
  if (state[MIRROR + SYNCING] === 1) {
    add("the mirror commits", (next) => {
      next[base(target) + DATA] = state[MIRROR + SYNC_DATA]!;
      const isAnother = of(state, target, POSITION_EPOCH) !== epoch;
      const before =
        isAnother && turn.has("a fence counts in its own epoch") ? 0 : of(state, target, POSITION);
      next[base(target) + POSITION] = Math.max(before, state[MIRROR + SYNC_FENCE]!);
      next[base(target) + POSITION_EPOCH] = epoch;
      endSync(next);
    });
    add("the mirror's transaction is ended", endSync);
    return;
  }
  const read = () =>
    add("the mirror reads", (next) => {
      next[MIRROR + SYNCING] = 1;
      next[MIRROR + SYNC_DATA] = of(state, source, DATA);
      next[MIRROR + SYNC_FENCE] = of(state, source, FENCE);
    });
  // The switch holds the direction lock in its transaction.
  const locked = ownerLeadsTo(state, target) === target && turn.has("the switch waits for syncs");
  if (state[MIRROR + SYNCING] === 2) {
    if (!locked) read();
    return;
  }
  const agreed = of(state, OLD, EPOCH);
  if (agreed === of(state, NEW, EPOCH) && agreed !== epoch)
    add("the mirror turns", (next) => (next[MIRROR + SYNC_EPOCH] = agreed));
  if (of(state, target, EPOCH) !== epoch && turn.has("a sync checks the epoch")) return;
  if (!turn.has("a sync checks under the lock"))
    add("the mirror checks the epoch", (next) => (next[MIRROR + SYNCING] = 2));
  else if (!locked) read();
}

export function endSync(next: number[]): void {
  next[MIRROR + SYNCING] = next[MIRROR + SYNC_DATA] = next[MIRROR + SYNC_FENCE] = 0;
}
