import pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import { SIDES } from "../../config/words.ts";
import type { Direction, Side } from "../../config/words.ts";
import { literal } from "./quote.ts";
import { sqlState } from "./session.ts";

/** What an attempt is; also the `kind` of its receipt. */
export type AttemptKind = "flip" | "drill" | "rollback";

/** One numbered try to move the authority. `number` only grows; a recovery takes a higher one for the same try. */
export interface Attempt {
  readonly number: number;
  readonly kind: AttemptKind;
  readonly from: Side;
  readonly to: Side;
  /** The epoch it leads to: set, never incremented, so that every step can be repeated. */
  readonly epoch: number;
}

/** The state row of one side (DESIGN §2.7). */
export interface StateRow {
  readonly side: Side;
  readonly plan: string;
  readonly direction: Direction;
  readonly epoch: number;
  /** Number of the newest attempt that was written here; 0 before the first. */
  readonly attempt: number;
  /** What that attempt is; undefined before the first. */
  readonly last: Attempt | undefined;
  readonly ended: boolean;
}

/** What a step relies on. Absent = not compared; the attempt always is. */
export interface Expected {
  readonly attempt: number;
  readonly ended?: boolean;
  readonly direction?: Direction;
  readonly epoch?: number;
  /** This side's guard lets writes through. */
  readonly guardOpen?: boolean;
}

interface RawState {
  side: Side;
  plan: string;
  direction: Direction;
  epoch: string;
  attempt: string;
  kind: AttemptKind | null;
  from_side: Side | null;
  to_side: Side | null;
  target: string | null;
  ended: string;
}

const COLUMNS = `side, plan, direction, epoch::text, attempt::text, attempt_kind as kind, attempt_from as from_side,
  attempt_to as to_side, attempt_epoch::text as target, attempt_ended::int::text as ended`;

/** The value of `crossfade.mirror` that the guard of the direction's target lets through. */
export function currentMarker(direction: Direction, epoch: number): string {
  return `${direction}:${epoch}`;
}

/** The state row of a side as committed now. Throws DATABASE_UNFIT where the side is not installed. */
export async function readState(client: pg.ClientBase, side: Side): Promise<StateRow> {
  const row = await findState(client, side);
  if (row !== undefined) return row;
  throw new CrossfadeError(
    "DATABASE_UNFIT",
    `the ${side} database has no state row of Crossfade for this side`,
    {
      hint: "`crossfade up` installs it; if it was there, the database was restored from before the migration began.",
    },
  );
}

/** The state row of a side; undefined where the side is not installed. */
export async function findState(client: pg.ClientBase, side: Side): Promise<StateRow | undefined> {
  try {
    const { rows } = await client.query<RawState>(
      `select ${COLUMNS} from crossfade.state where side = $1`,
      [side],
    );
    return rows[0] === undefined ? undefined : toState(rows[0]);
  } catch (error) {
    // 3F000 no such schema, 42P01 no such table: nothing is installed.
    if (["3F000", "42P01"].includes(sqlState(error) ?? "")) return undefined;
    throw error;
  }
}

function toState(row: RawState): StateRow {
  const { kind, from_side: from, to_side: to, target } = row;
  const attempt = Number(row.attempt);
  const known = kind !== null && from !== null && to !== null && target !== null;
  return {
    side: row.side,
    plan: row.plan,
    direction: row.direction,
    epoch: Number(row.epoch),
    attempt,
    last: known ? { number: attempt, kind, from, to, epoch: Number(target) } : undefined,
    ended: row.ended === "1",
  };
}

/** The statement that locks a state row and raises CF003 if it is not what is expected: lock and check are one. */
export function expectStateSql(
  side: Side,
  expected: Expected,
  lock: "update" | "share" = "update",
): string {
  const text = (value: string | undefined) => (value === undefined ? "null" : literal(value));
  const plain = (value: number | boolean | undefined) =>
    value === undefined ? "null" : String(value);
  const args = [
    text(side),
    plain(Math.trunc(expected.attempt)),
    plain(expected.ended),
    text(expected.direction),
    plain(expected.epoch),
    plain(expected.guardOpen),
    plain(lock === "share"),
  ];
  return `select crossfade.expect_state(${args.join(", ")})`;
}

/** Throws STALE if a higher attempt was written since. It may be a moment later: steps that change anything lock the row. */
export async function requireNewest(
  client: pg.ClientBase,
  side: Side,
  attempt: number,
): Promise<void> {
  const state = await readState(client, side);
  if (state.attempt === attempt) return;
  throw new CrossfadeError("STALE", `attempt ${state.attempt} has taken over from ${attempt}`);
}

export interface FencedChange {
  readonly side: Side;
  readonly expected: Expected;
  /** `share`: for changes that must not happen while somebody moves the row, but do not touch the row. */
  readonly lock?: "update" | "share";
  /** Per wait for a lock; the whole change fails with 55P03. */
  readonly lockTimeoutMs: number;
  /** Statements that may need the row locked and checked before them. */
  readonly change: string;
}

/**
 * Locks and checks the state row, changes, commits, durably. It travels as one message, so that a client that is paused
 * or dies in the middle leaves nothing open: all of it happens, or nothing does.
 * Throws STALE if the row is not as expected.
 */
export async function changeFenced(client: pg.ClientBase, change: FencedChange): Promise<void> {
  const statements = [
    "begin isolation level read committed",
    "set local synchronous_commit = on",
    `set local lock_timeout = ${Math.max(1, Math.round(change.lockTimeoutMs))}`,
    expectStateSql(change.side, change.expected, change.lock),
    change.change,
    "commit",
  ];
  try {
    await client.query(statements.join(";\n"));
  } catch (error) {
    // If the connection is gone there is nothing to roll back; the first error is the one that matters.
    await client.query("rollback").catch(() => {});
    throw asStale(error);
  }
}

/** The statement that writes an attempt, not ended, into a side's state row. */
export function writeAttemptSql(side: Side, attempt: Attempt): string {
  const { number, kind, from, to, epoch } = attempt;
  return `update crossfade.state set attempt = ${number}, attempt_kind = ${literal(kind)}, attempt_from = ${literal(from)},
    attempt_to = ${literal(to)}, attempt_epoch = ${epoch}, attempt_ended = false where side = ${literal(side)}`;
}

/** The statement that makes `direction` the active one for a side, at `epoch`. */
export function writeDirectionSql(side: Side, direction: Direction, epoch: number): string {
  return `update crossfade.state set direction = ${literal(direction)}, epoch = ${epoch} where side = ${literal(side)}`;
}

/** The statement that marks a side's attempt as ended. */
export function endAttemptSql(side: Side): string {
  return `update crossfade.state set attempt_ended = true where side = ${literal(side)}`;
}

/** CF003 as the error the rest of the program knows; anything else unchanged. */
export function asStale(error: unknown): unknown {
  return sqlState(error) === "CF003"
    ? new CrossfadeError("STALE", (error as Error).message, { cause: error })
    : error;
}

/** The state table, its one row per side, and the function that locks and checks a row in one statement. */
export function stateSql(): string {
  return `
create table if not exists crossfade.state (
  side text primary key check (side in (${SIDES.map(literal).join(", ")})),
  plan text not null,
  direction text not null default 'forward' check (direction in ('forward', 'reverse')),
  epoch int not null default 1,
  attempt int not null default 0,
  attempt_kind text check (attempt_kind in ('flip', 'drill', 'rollback')),
  attempt_from text,
  attempt_to text,
  attempt_epoch int,
  attempt_ended boolean not null default true);
grant select on crossfade.state to public;
create or replace function crossfade.expect_state(
  p_side text, p_attempt int, p_ended boolean, p_direction text, p_epoch int, p_open boolean, p_share boolean
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $body$
declare
  found_row crossfade.state;
  guard bigint;
begin
  if p_share then
    select * into found_row from crossfade.state where side = p_side for share;
  else
    select * into found_row from crossfade.state where side = p_side for update;
  end if;
  if p_open is not null then
    execute format('select last_value from crossfade.%I', 'guard_' || p_side) into guard;
  end if;
  if found_row.side is null
     or found_row.attempt <> p_attempt
     or found_row.attempt_ended <> p_ended
     or found_row.direction <> p_direction
     or found_row.epoch <> p_epoch
     or (guard = 0) <> p_open then
    raise exception using errcode = 'CF003', message = format(
      'the %s side moved on: it is at attempt %s (%s), %s:%s, guard %s; this step was made for attempt %s',
      p_side, coalesce(found_row.attempt::text, 'none'), case when found_row.attempt_ended then 'ended' else 'running' end,
      found_row.direction, found_row.epoch, coalesce(guard::text, 'not read'), p_attempt);
  end if;
end $body$`;
}
