import { CrossfadeError } from "../../config/errors.ts";
import { noteStanding } from "../../config/standing.ts";
import { PHASES, SIDES } from "../../config/words.ts";
import type { Phase, Side } from "../../config/words.ts";
import { query, queryOften, refuseOtherPlan } from "./open.ts";
import type { ControlStore } from "./open.ts";

/** Where the migration stands: the one row everybody follows. */
export interface Migration {
  readonly plan: string;
  readonly phase: Phase;
  readonly authority: Side;
  readonly epoch: number;
  /** Share of reads that new answers, 0–1. */
  readonly readsNew: number;
  /** 0 outside of canary, else the 1-based step. */
  readonly canaryStep: number;
  /** Random, made once: which clients are in the canary. */
  readonly salt: string;
  readonly hold: Hold | undefined;
  /** Highest attempt that has held or was released: attempts of a new installation go on from it. */
  readonly lastAttempt: number;
  readonly paused: Paused;
  /** What `tune` set, e.g. `{ workers: 1 }`; overrides the plan's throttle. */
  readonly throttle: Readonly<Record<string, number>>;
  /** Why the mirror found that a database went back in time; no fence counts and all reads go to the authority. */
  readonly gap: string | undefined;
  /** How often a gap was reported: what was copied for an earlier report does not make good what a later one missed. */
  readonly gapReport: number;
  /** The report for which every table was cut into chunks anew, in the direction of now; they may not be copied yet. */
  readonly gapPlanned: number;
  /** write-new without a reverse mapping was confirmed. */
  readonly noWayBack: boolean;
  /** What writes are answered with: maintenance is on. */
  readonly maintenance: string | undefined;
  /** When the phase, or the step of canary, was entered; by the server's clock. */
  readonly phaseSince: Date;
  /** Grows with every change. */
  readonly version: number;
  /** The same moment on two clocks, or the first a little earlier: this process's monotonic one, and the server's, ms. */
  readonly read: { readonly asked: number; readonly at: number };
}

export interface Hold {
  readonly attempt: number;
  /** When the lease ends, on this process's monotonic clock: compare with `performance.now()`. Never later than the server means. */
  readonly deadline: number;
}

export interface Paused {
  readonly backfill: boolean;
  readonly mirror: boolean;
}

/** What a change may set. Absent = unchanged. Holds have functions of their own: their fence is the attempt. */
export interface MigrationChange {
  readonly phase?: Phase;
  readonly authority?: Side;
  readonly epoch?: number;
  readonly readsNew?: number;
  readonly canaryStep?: number;
  readonly paused?: Partial<Paused>;
  readonly throttle?: Readonly<Record<string, number>>;
  readonly gap?: string | null;
  readonly gapPlanned?: number;
  readonly noWayBack?: boolean;
  readonly maintenance?: string | null;
}

/** What a change is based on; it does nothing if the row moved on. */
export interface MigrationExpectation {
  readonly phase: Phase;
  readonly epoch: number;
  /** Also compare the version: for changes that depend on more than phase and epoch. */
  readonly version?: number;
  /** Also compare how often a gap was reported. */
  readonly gapReport?: number;
}

interface Row {
  plan: string;
  phase: Phase;
  authority: Side;
  epoch: number;
  reads_new: number;
  canary_step: number;
  salt: string;
  hold_attempt: number | null;
  hold_ms: number | null;
  at_ms: number;
  last_attempt: number;
  paused_backfill: boolean;
  paused_mirror: boolean;
  throttle: Record<string, number>;
  gap: string | null;
  gap_report: number;
  gap_planned: number;
  no_way_back: boolean;
  maintenance: string | null;
  phase_since: Date;
  version: number;
}

const COLUMNS = `plan, phase, authority, epoch, reads_new, canary_step, salt, hold_attempt, last_attempt,
  (extract(epoch from hold_until - clock_timestamp()) * 1000)::float8 as hold_ms,
  (extract(epoch from clock_timestamp()) * 1000)::float8 as at_ms, paused_backfill, paused_mirror, throttle, gap, gap_report, gap_planned, no_way_back, maintenance,
  phase_since, version`;

/**
 * The message that tells of a change carries the row, so that a flip does not wait for everybody to read it. Not the salt:
 * whoever may connect to the database hears the message, and the key of the signed cookies comes from the salt. A message
 * holds 8,000 bytes; what does not fit is read.
 */
const STATE_NEWS = `(select case when octet_length(said) < 7000 then said else '{"t":"state"}' end
  from (select json_build_object('t', 'state', 'row', to_jsonb(changed) - 'salt')::text as said) as news)`;

/** Beside what a statement selects: its commit does not wait for the disk, nor for a standby. */
const COMMIT_AT_ONCE = "set_config('synchronous_commit', 'off', true)";

/** The row as a message carries it. */
export type PushedRow = Omit<Row, "salt" | "phase_since"> & { readonly phase_since: string };

/** The migration row. Throws DATABASE_UNFIT when the store is not installed, or is another plan's. */
export async function readMigration(store: ControlStore): Promise<Migration> {
  const asked = performance.now();
  const rows = await queryOften<Row>(store, `select ${COLUMNS} from ${store.table("migration")}`);
  const row = rows[0];
  if (row === undefined)
    throw new CrossfadeError(
      "DATABASE_UNFIT",
      `control schema ${store.schema} has no migration row`,
    );
  refuseOtherPlan(store, row.plan);
  const migration = toMigration(row, asked);
  noteStanding(migration);
  return migration;
}

/** How long the migration has been in its phase (in canary: in its step), ms, by the server's clock. */
export async function readPhaseAge(store: ControlStore): Promise<number> {
  const rows = await query<{ ms: number }>(
    store,
    `select (extract(epoch from clock_timestamp() - phase_since) * 1000)::float8 as ms from ${store.table("migration")}`,
  );
  return rows[0]?.ms ?? 0;
}

/**
 * Compare-and-set: applies `change` if phase and epoch (and version) are as expected, and notifies everybody in the same
 * transaction. Undefined when the row moved on.
 */
export async function changeMigration(
  store: ControlStore,
  expected: MigrationExpectation,
  change: MigrationChange,
): Promise<Migration | undefined> {
  const asked = performance.now();
  const rows = await queryOften<Row>(
    store,
    `with changed as (
       update ${store.table("migration")} set
         phase = coalesce($4, phase),
         phase_since = case when $4 is distinct from phase and $4 is not null or $8 is distinct from canary_step and $8 is not null then clock_timestamp() else phase_since end,
         authority = coalesce($5, authority),
         epoch = coalesce($6, epoch),
         reads_new = coalesce($7, reads_new),
         canary_step = coalesce($8, canary_step),
         paused_backfill = coalesce($9, paused_backfill),
         paused_mirror = coalesce($10, paused_mirror),
         throttle = coalesce($11, throttle),
         gap = case when $12 then $13 else gap end,
         gap_report = case when $13 is null then gap_report else gap_report + 1 end,
         gap_planned = case when $5 is distinct from authority and $5 is not null then 0 else coalesce($18, gap_planned) end,
         no_way_back = coalesce($14, no_way_back),
         maintenance = case when $16 then $17 else maintenance end,
         version = version + 1
       where phase = $1 and epoch = $2 and version = coalesce($3, version) and gap_report = coalesce($19, gap_report)
       returning ${COLUMNS})
     select changed.*, pg_notify($15, ${STATE_NEWS}) from changed`,
    parameters(store, expected, change),
  );
  return rows[0] === undefined ? undefined : toMigration(rows[0], asked);
}

/** `changeMigration` that throws STALE when the row moved on. */
export async function setMigration(
  store: ControlStore,
  expected: MigrationExpectation,
  change: MigrationChange,
): Promise<Migration> {
  const changed = await changeMigration(store, expected, change);
  if (changed !== undefined) return changed;
  const now = await readMigration(store);
  throw new CrossfadeError(
    "STALE",
    `the migration moved on: expected phase ${expected.phase} at epoch ${expected.epoch}, found ${now.phase} at epoch ${now.epoch}`,
  );
}

/**
 * Asks every sidecar to hold writes for an attempt; the lease counts from this statement, by the server's clock. Attempts only
 * grow: undefined, and nothing changed, when a higher one has held or was released. Sidecars hear of it as soon as it is
 * committed, while its commit need not wait for the disk: a lease that a crash of the server forgets has ended early.
 */
export async function holdWrites(
  store: ControlStore,
  hold: { readonly attempt: number; readonly ms: number },
): Promise<Migration | undefined> {
  const asked = performance.now();
  const rows = await queryOften<Row>(
    store,
    `with changed as (
       update ${store.table("migration")} set hold_attempt = $2, last_attempt = $2, version = version + 1,
         hold_until = clock_timestamp() + make_interval(secs => $3::float8 / 1000)
       where last_attempt <= $2::int
       returning ${COLUMNS})
     select changed.*, ${COMMIT_AT_ONCE}, pg_notify($1, ${STATE_NEWS}) from changed`,
    [store.channel, hold.attempt, hold.ms],
  );
  return rows[0] === undefined ? undefined : toMigration(rows[0], asked);
}

/**
 * Ends the hold of this attempt and of every lower one, and keeps lower ones from holding later. A crash of the server may
 * bring it back until its lease ends; writes wait for this commit, so that it does not wait for the disk.
 */
export async function releaseWrites(store: ControlStore, attempt: number): Promise<void> {
  await queryOften(
    store,
    `with changed as (
       update ${store.table("migration")} set last_attempt = greatest(last_attempt, $2::int), version = version + 1,
         hold_attempt = case when hold_attempt <= $2::int then null else hold_attempt end,
         hold_until = case when hold_attempt <= $2::int then null else hold_until end
       where last_attempt < $2::int or hold_attempt <= $2::int
       returning ${COLUMNS})
     select ${COMMIT_AT_ONCE}, pg_notify($1, ${STATE_NEWS}) from changed`,
    [store.channel, attempt],
  );
}

function parameters(
  store: ControlStore,
  expected: MigrationExpectation,
  change: MigrationChange,
): unknown[] {
  return [
    expected.phase,
    expected.epoch,
    expected.version ?? null,
    change.phase ?? null,
    change.authority ?? null,
    change.epoch ?? null,
    change.readsNew ?? null,
    change.canaryStep ?? null,
    change.paused?.backfill ?? null,
    change.paused?.mirror ?? null,
    change.throttle === undefined ? null : JSON.stringify(change.throttle),
    change.gap !== undefined,
    change.gap ?? null,
    change.noWayBack ?? null,
    store.channel,
    change.maintenance !== undefined,
    change.maintenance ?? null,
    change.gapPlanned ?? null,
    expected.gapReport ?? null,
  ];
}

/**
 * The row that a message carried, for a process that knows an earlier one; undefined for anything else than such a row. The
 * lease of its hold is placed on this process's clock by what was read last, so that it never ends late, however late the
 * message comes.
 */
export function pushedMigration(pushed: unknown, known: Migration): Migration | undefined {
  const row = pushed as Partial<PushedRow> | null | undefined;
  if (typeof row !== "object" || row === null || row.plan !== known.plan) return undefined;
  const { version, epoch, at_ms: at } = row;
  if (![version, epoch, at].every((value) => typeof value === "number")) return undefined;
  if (!isOneOf(PHASES, row.phase) || !isOneOf(SIDES, row.authority)) return undefined;
  const whole = row as PushedRow;
  const full: Row = { ...whole, salt: known.salt, phase_since: new Date(whole.phase_since) };
  return toMigration(full, known.read.asked + (whole.at_ms - known.read.at));
}

function isOneOf(words: readonly string[], word: string | undefined): boolean {
  return word !== undefined && words.includes(word);
}

/** `asked` is before the statement was sent: the lease then ends early by the network's delay, never late. */
function toMigration(row: Row, asked: number): Migration {
  return {
    read: { asked, at: row.at_ms },
    plan: row.plan,
    phase: row.phase,
    authority: row.authority,
    epoch: row.epoch,
    readsNew: row.reads_new,
    canaryStep: row.canary_step,
    salt: row.salt,
    hold:
      row.hold_attempt === null || row.hold_ms === null
        ? undefined
        : { attempt: row.hold_attempt, deadline: asked + row.hold_ms },
    lastAttempt: row.last_attempt,
    paused: { backfill: row.paused_backfill, mirror: row.paused_mirror },
    throttle: row.throttle,
    gap: row.gap ?? undefined,
    gapReport: row.gap_report,
    gapPlanned: row.gap_planned,
    noWayBack: row.no_way_back,
    maintenance: row.maintenance ?? undefined,
    phaseSince: row.phase_since,
    version: row.version,
  };
}
