import type pg from "pg";
import type { Direction } from "../../config/words.ts";
import { confirmedSequence, logTable } from "./follow-schema.ts";
import type { CompiledDirection } from "./mapping.ts";
import { literal } from "./quote.ts";
import { run } from "./statement.ts";

/** What tells one incarnation of a server from another. */
export interface SourceIdentity {
  readonly system: string;
  readonly timeline: string;
}

async function readIdentity(client: pg.ClientBase): Promise<SourceIdentity> {
  // The timeline that is written on. The one in the control file is that of the last checkpoint: minutes behind after a failover.
  const [row] = await run(
    client,
    `select system_identifier::text, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint::text
     from pg_control_system()`,
  );
  return { system: row?.[0] ?? "", timeline: row?.[1] ?? "" };
}

/**
 * Compares what the target remembers of the source with what the source is and remembers (DESIGN §2.4). Returns why
 * there is a gap — one of them was restored, or the source failed over — or undefined. Remembers the source's identity
 * on the first call.
 */
export async function findGap(
  compiled: CompiledDirection,
  source: pg.ClientBase,
  target: pg.ClientBase,
): Promise<string | undefined> {
  const { direction } = compiled;
  const now = await readIdentity(source);
  // Written in any case: it waits for the disk, and so does what an earlier mirror committed and did not live to flush.
  const [row] = await run(
    target,
    `update crossfade.position set source_system = coalesce(source_system, $2), source_timeline = coalesce(source_timeline, $3)
     where direction = $1 returning source_system, source_timeline, pass::text, read::text`,
    [direction, now.system, now.timeline],
  );
  if (row === undefined)
    return `the ${compiled.target} database has no position for ${direction}: it was restored from before the migration`;
  const [system, timeline, pass, read] = row;
  if (system === VOID)
    return `the ${compiled.target} database went back in time: its epoch was lower than it had been, or its guard open`;
  if (system !== now.system)
    return `the ${compiled.source} database is another server now (system identifier ${now.system}, was ${system})`;
  if (timeline !== now.timeline)
    return `the ${compiled.source} database failed over (timeline ${now.timeline}, was ${timeline})`;
  const confirmed = await lastConfirmed(source, direction);
  if (confirmed > BigInt(pass ?? 0))
    return `the ${compiled.target} database went back in time (pass ${pass}, but ${confirmed} was confirmed)`;
  // A fence is on the disk before anybody reads it, and its number is never given again but by a log that went back.
  const [log] = await run(
    source,
    `select (case when is_called then last_value else 0 end)::text from ${logTable(compiled.source)}_id`,
  );
  if (BigInt(read ?? 0) > BigInt(log?.[0] ?? 0))
    return `the ${compiled.source} database went back in time (its log ends at ${log?.[0]}, but fence ${read} was read)`;
  return undefined;
}

/** Instead of a system identifier: what the target has is not what it was told. */
const VOID = "";

/** The statement, for the target, that makes the next mirror of this direction find a gap and copy every table again. */
export function voidPositionSql(direction: Direction): string {
  return `update crossfade.position set source_system = ${literal(VOID)} where direction = ${literal(direction)}`;
}

/** Takes the source as it is now: after a gap was found, and everything is to be copied again. */
export async function acceptGap(
  compiled: CompiledDirection,
  source: pg.ClientBase,
  target: pg.ClientBase,
  epoch: number,
): Promise<void> {
  const now = await readIdentity(source);
  const confirmed = await lastConfirmed(source, compiled.direction);
  await run(
    target,
    `insert into crossfade.position as p (direction, epoch, fence, read, pass, source_system, source_timeline)
     values ($1, $2::int, 0, 0, $5::bigint, $3, $4)
     on conflict (direction) do update set source_system = excluded.source_system, source_timeline = excluded.source_timeline,
       pass = greatest(p.pass, excluded.pass), fence = 0, read = 0`,
    [compiled.direction, epoch, now.system, now.timeline, confirmed.toString()],
  );
}

async function lastConfirmed(source: pg.ClientBase, direction: Direction): Promise<bigint> {
  const [row] = await run(source, `select last_value::text from ${confirmedSequence(direction)}`);
  return BigInt(row?.[0] ?? 0);
}
