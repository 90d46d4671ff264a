import type { Direction } from "../../config/words.ts";
import { query } from "./open.ts";
import type { ControlStore } from "./open.ts";

export const WORKER_ROLES = ["mirror", "backfill", "control"] as const;
export type WorkerRole = (typeof WORKER_ROLES)[number];

/** What each role reports with its heartbeat. */
export interface WorkerStats {
  readonly mirror: MirrorStats;
  readonly backfill: BackfillStats;
  readonly control: ControlStats;
}

export interface MirrorStats {
  readonly direction: Direction;
  readonly epoch: number;
  /** Age of the oldest change not yet passed; 0 when it is up to date. */
  readonly lag_ms: number;
  /** Keys synced since it started. */
  readonly keys: number;
  readonly passes: number;
  /** Keys that wait for another one (foreign keys, unique). */
  readonly deferred: number;
  readonly state: "starting" | "running" | "paused" | "waiting" | "failed";
  /** Highest fence passed, as decimal text. */
  readonly fence: string;
  /** Why it is not running, if it is not. */
  readonly why?: string;
  /** Another one leads; this one takes over when that is gone. */
  readonly standby?: true;
}

export interface BackfillStats {
  readonly state: "idle" | "copying" | "paused" | "throttled" | "failed";
  readonly rows_per_s: number;
  /** Why it is slowed down, e.g. `replica lag 7 s > 5 s`. */
  readonly throttle?: string;
  readonly why?: string;
}

export interface ControlStats {
  readonly leading: boolean;
  /** What it is doing right now. */
  readonly doing?: string;
}

export interface WorkerSeen<Role extends WorkerRole = WorkerRole> {
  readonly id: string;
  readonly role: Role;
  readonly stats: WorkerStats[Role];
  readonly seenMs: number;
}

/** Registers this process or renews it. */
export async function beatWorker<Role extends WorkerRole>(
  store: ControlStore,
  beat: { readonly id: string; readonly role: Role; readonly stats: WorkerStats[Role] },
): Promise<void> {
  await query(
    store,
    `insert into ${store.table("worker")} (id, role, stats) values ($1, $2, $3)
     on conflict (id) do update set role = excluded.role, stats = excluded.stats, seen = clock_timestamp()`,
    [beat.id, beat.role, JSON.stringify(beat.stats)],
  );
}

/** Processes of a role, the one seen last first; those that stand by for another come after all who do not. */
export async function readWorkers<Role extends WorkerRole>(
  store: ControlStore,
  role: Role,
): Promise<WorkerSeen<Role>[]> {
  const rows = await query<{ id: string; stats: WorkerStats[Role]; seen_ms: number }>(
    store,
    `select id, stats, (extract(epoch from clock_timestamp() - seen) * 1000)::float8 as seen_ms
     from ${store.table("worker")} where role = $1 order by coalesce((stats ->> 'standby')::boolean, false), seen desc`,
    [role],
  );
  return rows.map((row) => ({
    id: row.id,
    role,
    stats: row.stats,
    seenMs: Math.max(0, row.seen_ms),
  }));
}

export async function removeWorker(store: ControlStore, id: string): Promise<void> {
  await query(store, `delete from ${store.table("worker")} where id = $1`, [id]);
}

/** Forgets processes that were not seen for `ms`. */
export async function forgetWorkers(store: ControlStore, ms: number): Promise<void> {
  await query(
    store,
    `delete from ${store.table("worker")} where seen < clock_timestamp() - make_interval(secs => $1::float8 / 1000)`,
    [ms],
  );
}
