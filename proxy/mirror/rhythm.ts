/**
 * After a pass with this many changes and no fence, let more gather, and the longer the more there were: what a pass costs by
 * itself is then shared by many changes, and a hot row is synced once. Somebody who waits has written a fence, which ends the wait at once.
 */
const BUSY = { changes: 4, gatherMs: 4, perChangeMs: 0.3, mostMs: 100 } as const;
/** How long to wait when the log is empty: short after traffic, longer the longer it is quiet. */
const QUIET = { busyMs: 1, busyForMs: 1_000, calmMs: 5, calmForMs: 10_000, idleMs: 20 } as const;
/**
 * Looking into an empty log takes the source's time. Usually some 50 µs; while an old snapshot keeps vacuum from cleaning the
 * log, a millisecond and more. So many times as long the source is left alone, up to a limit: what waits for a lock takes long too.
 */
const REST = { times: 2, mostMs: 100 } as const;

/** A change that has waited for so long has had time enough to gather: the mirror is behind. */
const BEHIND_MS = 1_000;

/** How long to let changes gather after a pass that had so many, the oldest of which came so late, ms. */
export function gatherFor(changes: number, lagMs: number): number {
  if (changes < BUSY.changes || lagMs > BEHIND_MS) return 0;
  return Math.min(BUSY.mostMs, BUSY.gatherMs + changes * BUSY.perChangeMs);
}

/**
 * While writes are held the fence comes, whose message ends the wait, and little else: looking for it would take time from those
 * whom the writes wait for.
 */
const HELD_MS = 20;

/** How long to wait before looking again, ms: by how long the log has been empty, and how long it took to see that. */
export function quietFor(emptyMs: number, tookMs: number, isHeld = false): number {
  if (isHeld) return HELD_MS;
  return Math.max(patience(emptyMs), Math.min(REST.mostMs, REST.times * tookMs));
}

function patience(emptyMs: number): number {
  if (emptyMs < QUIET.busyForMs) return QUIET.busyMs;
  return emptyMs < QUIET.calmForMs ? QUIET.calmMs : QUIET.idleMs;
}

const REMEMBERED = 16;

/** How long looking takes by itself: the shortest of the last looks, because a machine that is busy makes any of them long. */
export class Looks {
  readonly #last: number[] = [];

  took(ms: number): number {
    this.#last.push(ms);
    if (this.#last.length > REMEMBERED) this.#last.shift();
    return Math.min(...this.#last);
  }
}
