import { createHash } from "node:crypto";
import type { Direction, Side } from "../../config/words.ts";

/**
 * Advisory locks of Crossfade, all in the two-int form. One plan per database, so the numbers need no plan in them;
 * both sides may share a database, so they carry the side.
 */
const CLASS_FIXED = 0x4346;
const CLASS_CHUNK = { forward: 0x4347, reverse: 0x4348 } as const;

/** Stripes per table: bounded, because 40,000 distinct locks exhaust shared memory (MECHANICS: 64 × connections). */
export const STRIPES = 256;

export interface AdvisoryLock {
  readonly classId: number;
  readonly objectId: number;
}

/** Writers of a side take it shared while the guard is armed; a flip takes it exclusively. On the side's database. */
export function guardLock(side: Side): AdvisoryLock {
  return { classId: CLASS_FIXED, objectId: side === "old" ? 1 : 2 };
}

/**
 * How long the guard's lock may be asked for, ms: writers queue behind us meanwhile, and in a circle with two of the app's
 * transactions it is us who step aside.
 */
export const GUARD_PATIENCE_SQL =
  "greatest(1, least(250, extract(epoch from current_setting('deadlock_timeout')::interval) * 500))::int";

/** Every sync takes it shared on its target; the switch of direction exclusively. */
export function directionLock(target: Side): AdvisoryLock {
  return { classId: CLASS_FIXED, objectId: target === "old" ? 3 : 4 };
}

/** Held while a side's replication slot is made or dropped, on that side's database. */
export function slotLock(side: Side): AdvisoryLock {
  return { classId: CLASS_FIXED, objectId: side === "old" ? 6 : 7 };
}

/** Held by the session of the one mirror that runs, on the database of the new side. */
export const MIRROR_LOCK: AdvisoryLock = { classId: CLASS_FIXED, objectId: 5 };

/** Held by whoever drops or builds what `backfill.defer` names, on the database of the new side, until its session ends. */
export const DEFER_LOCK: AdvisoryLock = { classId: CLASS_FIXED, objectId: 8 };

/** Held by the session of the controller that leads, on the control database. */
export function controllerLock(plan: string): AdvisoryLock {
  return {
    classId: CLASS_FIXED,
    objectId: 1000 + (createHash("sha256").update(plan).digest().readUInt32BE(0) % 1_000_000),
  };
}

/** Serialises installs and removals on one database: both sides, and the control store, may live there. */
export const INSTALL_LOCK: AdvisoryLock = { classId: CLASS_FIXED, objectId: 999 };

/** Lock of a stripe of a source table's chunks, on the target of the direction. */
export function chunkLock(direction: Direction, tableNumber: number, stripe: number): AdvisoryLock {
  return { classId: CLASS_CHUNK[direction], objectId: tableNumber * STRIPES + stripe };
}
