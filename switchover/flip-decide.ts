import { CrossfadeError } from "../config/errors.ts";
import { directionFrom, otherSide, sourceOf } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import type { Attempt, StateRow } from "../store/postgres/state.ts";

/** What a side says of itself, read after its last commit. */
export interface SideFacts {
  readonly row: StateRow;
  /** Its guard refuses writes. */
  readonly closed: boolean;
}

export type Facts = Readonly<Record<Side, SideFacts>>;

/** Either all is in order, or an attempt is to be resolved (under a number of its own, higher than any written). */
export type Finding =
  | {
      readonly kind: "settled";
      readonly authority: Side;
      readonly epoch: number;
      readonly attempt: number;
    }
  | { readonly kind: "unfinished"; readonly attempt: Attempt };

/** Pure. What the two state rows and guards say together. Throws REFUSED where they contradict each other for good. */
export function examine(facts: Facts): Finding {
  const { old, new: next } = { old: facts.old.row, new: facts.new.row };
  const number = Math.max(old.attempt, next.attempt) + 1;
  const agree =
    old.attempt === next.attempt && old.epoch === next.epoch && old.direction === next.direction;
  if (agree && old.ended && next.ended) {
    const authority = sourceOf(old.direction);
    const inOrder = !facts[authority].closed && facts[otherSide(authority)].closed;
    if (inOrder) return { kind: "settled", authority, epoch: old.epoch, attempt: old.attempt };
  }
  const running = runningAttempt(old, next);
  return {
    kind: "unfinished",
    attempt: running === undefined ? restoreAttempt(old, next, number) : { ...running, number },
  };
}

/** The newest attempt if it has not ended on both sides. */
function runningAttempt(old: StateRow, next: StateRow): Attempt | undefined {
  const newest =
    old.attempt > next.attempt || (old.attempt === next.attempt && !old.ended) ? old : next;
  const other = newest === old ? next : old;
  const ended = newest.ended && (other.attempt < newest.attempt || other.ended);
  return ended ? undefined : newest.last;
}

/**
 * No attempt runs and yet the sides disagree, or both (or none) take writes: a database was restored or failed over. The
 * higher epoch is the authority; the attempt leads to where it says.
 */
function restoreAttempt(old: StateRow, next: StateRow, number: number): Attempt {
  const newer = newerRow(old, next);
  const to = sourceOf(newer.direction);
  return { number, kind: "flip", from: otherSide(to), to, epoch: newer.epoch };
}

function newerRow(old: StateRow, next: StateRow): StateRow {
  if (old.epoch === next.epoch && old.direction !== next.direction) {
    throw new CrossfadeError(
      "REFUSED",
      `the state rows contradict each other: both at epoch ${old.epoch}, in two directions`,
      {
        hint: "They were changed by hand. Decide which side is right and correct crossfade.state on the other.",
      },
    );
  }
  return old.epoch > next.epoch ? old : next;
}

/**
 * Pure. Whether an attempt has been decided, read after a higher attempt was committed on both sides (so that nobody
 * else writes, and all that was written before is durable). The guard of `from` says so; an epoch of the attempt on either
 * side does as well: it is committed only after the decision, and outlives a failover that lost the guard.
 */
export function isDecided(attempt: Attempt, facts: Facts): boolean {
  const direction = directionFrom(attempt.to);
  const reached = (row: StateRow) => row.epoch >= attempt.epoch && row.direction === direction;
  return facts[attempt.from].closed || reached(facts.old.row) || reached(facts.new.row);
}
