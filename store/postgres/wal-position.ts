import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Side } from "../../config/words.ts";
import { formatLsn, type Lsn, parseLsn } from "./lsn.ts";
import type { CompiledDirection } from "./mapping.ts";
import { run } from "./statement.ts";
import { findSlot, replaceSlot } from "./wal-slot.ts";

/**
 * Where a direction goes on reading. The target keeps the position of what is durable there; the slot what was
 * confirmed; and the source the epoch in which reading began, so that a target that went back is noticed even where it
 * forgot that it had begun.
 */
interface Positions {
  readonly lsn: Lsn | undefined;
  /** The epoch `lsn` belongs to. */
  readonly epoch: number | undefined;
  /** As the source remembers it. */
  readonly begunEpoch: number | undefined;
}

async function readPositions(
  { direction, source: side }: CompiledDirection,
  source: pg.ClientBase,
  target: pg.ClientBase,
): Promise<Positions> {
  const [position] = await run(
    target,
    "select lsn::text, lsn_epoch::text from crossfade.position where direction = $1",
    [direction],
  );
  const [feed] = await run(source, "select epoch::text from crossfade.feed where side = $1", [
    side,
  ]);
  const number = (text: string | null | undefined) => (text == null ? undefined : Number(text));
  return {
    lsn: position?.[0] == null ? undefined : parseLsn(position[0]),
    epoch: number(position?.[1]),
    begunEpoch: number(feed?.[0]),
  };
}

/** Why the slot cannot give all that the target lacks (DESIGN §2.4), or undefined. */
export async function findWalGap(
  compiled: CompiledDirection,
  epoch: number,
  source: pg.ClientBase,
  target: pg.ClientBase,
): Promise<string | undefined> {
  const side = compiled.source;
  const slot = await findSlot(source, side);
  if (slot?.confirmed === undefined)
    return `the replication slot of the ${side} database is gone: what changed since then cannot be read any more`;
  if (slot.lost !== undefined) return `the ${side} database: ${slot.lost}`;
  const at = await readPositions(compiled, source, target);
  if (at.epoch !== epoch || at.lsn === undefined) {
    return at.begunEpoch === epoch
      ? `the ${compiled.target} database went back in time: it does not know how far the ${side} database was read`
      : undefined;
  }
  if (slot.confirmed > at.lsn)
    return `the ${compiled.target} database went back in time, or the replication slot of the ${side} database was made anew (position ${formatLsn(at.lsn)}, but ${formatLsn(slot.confirmed)} was confirmed)`;
  const [row] = await run(source, "select pg_current_wal_insert_lsn()::text");
  if (at.lsn > parseLsn(row?.[0] ?? "0/0"))
    return `the ${side} database went back in time: its WAL ends before the position ${formatLsn(at.lsn)}`;
  return undefined;
}

/**
 * The position to read from. The first time in an epoch it is the slot's own: what came before was written by the
 * mirror, because this side followed. Call after `findWalGap` found nothing.
 */
export async function beginAt(
  compiled: CompiledDirection,
  epoch: number,
  source: pg.ClientBase,
  target: pg.ClientBase,
): Promise<Lsn> {
  const at = await readPositions(compiled, source, target);
  if (at.epoch !== epoch || at.lsn === undefined)
    return acceptPosition(compiled, epoch, source, target);
  await rememberBegun(source, compiled.source, epoch);
  return at.lsn;
}

/** The target first: a crash in between leaves a start that is simply made again. */
async function acceptPosition(
  compiled: CompiledDirection,
  epoch: number,
  source: pg.ClientBase,
  target: pg.ClientBase,
): Promise<Lsn> {
  const slot = await findSlot(source, compiled.source);
  if (slot?.confirmed === undefined)
    throw new CrossfadeError(
      "STALE",
      `the replication slot of the ${compiled.source} database is gone again`,
    );
  await run(
    target,
    "update crossfade.position set lsn = $2::pg_lsn, lsn_epoch = $3::int where direction = $1",
    [compiled.direction, formatLsn(slot.confirmed), epoch],
  );
  await rememberBegun(source, compiled.source, epoch);
  return slot.confirmed;
}

async function rememberBegun(source: pg.ClientBase, side: Side, epoch: number): Promise<void> {
  await run(
    source,
    "update crossfade.feed set epoch = $2::int where side = $1 and epoch is distinct from $2::int",
    [side, epoch],
  );
}

/**
 * After a gap: a slot that can be read, made anew where it cannot, and nothing counted as copied before every
 * transaction it does not show has ended. The gap stays until `closeGap`: dying in between only finds it again.
 */
export async function openAfterGap(
  compiled: CompiledDirection,
  epoch: number,
  source: pg.Client,
): Promise<void> {
  const side = compiled.source;
  // Before there is a slot again: without it a first start in this epoch would take the new slot for the old one.
  await rememberBegun(source, side, epoch);
  const slot = await findSlot(source, side);
  if (slot?.confirmed === undefined || slot.lost !== undefined) await replaceSlot(source, side);
  await run(
    source,
    "update crossfade.feed set barrier = pg_snapshot_xmax(pg_current_snapshot())::text where side = $1",
    [side],
  );
}

/** Takes the slot's position as the target's: everything is to be copied again from now on. */
export async function closeGap(
  compiled: CompiledDirection,
  epoch: number,
  source: pg.ClientBase,
  target: pg.ClientBase,
): Promise<void> {
  await acceptPosition(compiled, epoch, source, target);
}
