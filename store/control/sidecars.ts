import type { RouteKind, Side } from "../../config/words.ts";
import { channelOf, query, queryOften } from "./open.ts";
import type { ControlStore } from "./open.ts";
import type { RequestReport } from "./request-report.ts";
import type { ShadowReport } from "./shadow-report.ts";
import type { WindowReport } from "./side-reads.ts";

/** What a sidecar says of itself with every heartbeat. */
export interface SidecarHeartbeat {
  readonly id: string;
  /** The epoch it routes by: its acknowledgement of a flip. */
  readonly epoch: number;
  /** The attempt whose hold it keeps with no write left in flight: its acknowledgement of a hold. */
  readonly holdAttempt: number | undefined;
  /** Writes that were sent to an app and are not answered yet. */
  readonly inFlightWrites: number;
  /** host:port it listens on. */
  readonly listen: string;
  readonly stats: SidecarStats;
  /** The other sidecars are to hear of it at once. */
  readonly isNews?: boolean;
}

/** Whatever a sidecar counts (proxy/stats-types.ts): `held` is what receipts are made of, `shadow` what its gate looks at. */
export interface SidecarStats {
  readonly held?: HeldReport;
  /** `recent`: over the last reporting interval. */
  readonly traffic?: readonly TrafficReport[];
  /** `breaker`: open while the new app does not answer its reads. */
  readonly reads?: ReadsReport;
  readonly requests?: readonly RequestReport[];
  readonly in_flight?: number;
  readonly in_flight_writes?: number;
  readonly streams?: number;
  readonly fallbacks?: number;
  readonly shadow?: ShadowReport;
  readonly window?: WindowReport;
}

/** Who answers reads, and what is promised of them. */
export interface ReadsReport {
  readonly breaker: "closed" | "open";
  readonly breaker_opened?: number;
  /** Share of clients whose reads new answers. */
  readonly share?: number;
  /** Why that is less than phase and canary step ask for; null: it is not. */
  readonly why?: string | null;
  readonly pinned?: number;
  /** `ok`, or why tokens cannot be kept in Redis; null: they are not. */
  readonly redis?: string | null;
  readonly unpromised?: number;
}

/** How the app answers, by side and kind of request. */
export interface TrafficReport {
  readonly side: Side;
  readonly kind: RouteKind;
  readonly requests: number;
  readonly recent: { readonly count: number; readonly p99: number };
}

/** What a sidecar held for the newest attempt that held anything there. */
export interface HeldReport {
  /** Waiting now. */
  readonly now?: number;
  readonly total?: number;
  readonly total_seconds?: number;
  /** An attempt whose report is still to come. */
  readonly pending?: number | null;
  readonly attempt: number | null;
  readonly writes: number;
  /** Held writes that ended in an error. */
  readonly failed: number;
  /** How long each held write waited. */
  readonly durations_ms: readonly number[];
  readonly max_ms: number;
}

export interface SidecarSeen extends SidecarHeartbeat {
  /** ms since its last heartbeat, by the server's clock. */
  readonly seenMs: number;
}

/**
 * Registers a sidecar or renews it. Notifies the controller only when something a flip waits for changed (epoch, hold, last
 * write in flight answered), and the other sidecars when they want to know more (epoch, promises), so that heartbeats wake nobody.
 */
export async function beatSidecar(store: ControlStore, beat: SidecarHeartbeat): Promise<void> {
  await queryOften(
    store,
    `with before as (select epoch, hold_attempt, in_flight_writes from ${store.table("sidecar")} where id = $1),
     beat as (
       insert into ${store.table("sidecar")} as s (id, epoch, hold_attempt, in_flight_writes, listen, stats)
       values ($1::text, $2::int, $3::int, $4::int, $5, $6)
       on conflict (id) do update set epoch = excluded.epoch, hold_attempt = excluded.hold_attempt,
         in_flight_writes = excluded.in_flight_writes, listen = excluded.listen, stats = excluded.stats, seen = clock_timestamp()
       returning id)
     select case when (b.epoch, b.hold_attempt, b.in_flight_writes = 0) is distinct from ($2::int, $3::int, $4::int = 0) or $8::boolean
                 then pg_notify($7, news) end,
            case when b.epoch is distinct from $2::int or $8::boolean then pg_notify($9, news) end
     from beat left join before b on true,
          cast(json_build_object('t', 'sidecar', 'id', $1::text, 'epoch', $2::int, 'hold', $3::int) as text) as news`,
    [
      beat.id,
      beat.epoch,
      beat.holdAttempt ?? null,
      beat.inFlightWrites,
      beat.listen,
      JSON.stringify(beat.stats),
      channelOf(store, "controller"),
      beat.isNews ?? false,
      channelOf(store, "sidecars"),
    ],
  );
}

/** What a flip waits for, of every registered sidecar: without what they count, which is long. */
export async function readAcknowledgements(
  store: ControlStore,
): Promise<Pick<SidecarSeen, "id" | "epoch" | "holdAttempt" | "seenMs">[]> {
  const rows = await queryOften<Pick<SidecarRow, "id" | "epoch" | "hold_attempt" | "seen_ms">>(
    store,
    `select id, epoch, hold_attempt, (extract(epoch from clock_timestamp() - seen) * 1000)::float8 as seen_ms
     from ${store.table("sidecar")} order by started, id`,
  );
  return rows.map(({ id, epoch, hold_attempt: hold, seen_ms: seen }) => ({
    id,
    epoch,
    holdAttempt: hold ?? undefined,
    seenMs: Math.max(0, seen),
  }));
}

/** All registered sidecars, oldest first. */
export async function readSidecars(store: ControlStore): Promise<SidecarSeen[]> {
  const rows = await queryOften<SidecarRow>(
    store,
    `select id, epoch, hold_attempt, in_flight_writes, listen, stats,
            (extract(epoch from clock_timestamp() - seen) * 1000)::float8 as seen_ms
     from ${store.table("sidecar")} order by started, id`,
  );
  return rows.map((row) => ({
    id: row.id,
    epoch: row.epoch,
    holdAttempt: row.hold_attempt ?? undefined,
    inFlightWrites: row.in_flight_writes,
    listen: row.listen,
    stats: row.stats,
    seenMs: Math.max(0, row.seen_ms),
  }));
}

/** A sidecar that stops in order takes itself off the list. */
export async function removeSidecar(store: ControlStore, id: string): Promise<void> {
  await query(
    store,
    `with gone as (delete from ${store.table("sidecar")} where id = $1 returning id)
     select pg_notify($2, $4), pg_notify($3, $4) from gone`,
    [
      id,
      channelOf(store, "controller"),
      channelOf(store, "sidecars"),
      JSON.stringify({ t: "sidecar", id }),
    ],
  );
}

/** Forgets sidecars that were not seen for `ms`; returns their ids. The guard keeps them from the wrong side. */
export async function forgetSidecars(store: ControlStore, ms: number): Promise<string[]> {
  const rows = await query<{ id: string }>(
    store,
    `delete from ${store.table("sidecar")} where seen < clock_timestamp() - make_interval(secs => $1::float8 / 1000) returning id`,
    [ms],
  );
  return rows.map((row) => row.id);
}

interface SidecarRow {
  id: string;
  epoch: number;
  hold_attempt: number | null;
  in_flight_writes: number;
  listen: string;
  stats: SidecarStats;
  seen_ms: number;
}
