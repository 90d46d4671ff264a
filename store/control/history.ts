import type { Phase, Side } from "../../config/words.ts";
import { channelOf, query } from "./open.ts";
import type { ControlStore } from "./open.ts";

/** One line of the timeline. Events are only ever added. */
export interface TimelineEvent {
  readonly id: number;
  readonly at: Date;
  readonly kind: string;
  readonly by: string;
  readonly phase: Phase;
  readonly epoch: number;
  readonly detail: Readonly<Record<string, unknown>>;
}

/** Appends to the timeline; phase and epoch are those of the migration row at that moment. */
export async function addEvent(
  store: ControlStore,
  event: {
    readonly kind: string;
    readonly by: string;
    readonly detail?: Readonly<Record<string, unknown>>;
  },
): Promise<void> {
  await query(
    store,
    `with added as (
       insert into ${store.table("event")} (kind, by, phase, epoch, detail)
       select $1, $2, phase, epoch, $3 from ${store.table("migration")} returning id)
     select pg_notify($4, '{"t":"event"}') from added`,
    [event.kind, event.by, JSON.stringify(event.detail ?? {}), channelOf(store, "controller")],
  );
}

/** The events after `afterId`, oldest first, as many as the limit: to follow the timeline without a gap. */
export async function readEventsAfter(
  store: ControlStore,
  afterId: number,
  limit = 500,
): Promise<TimelineEvent[]> {
  return query<EventRow>(
    store,
    `select id, at, kind, by, phase, epoch, detail from ${store.table("event")} where id > $1 order by id limit $2`,
    [afterId, limit],
  );
}

/** The last event that the webhooks were told of. */
export async function readNotified(store: ControlStore): Promise<number> {
  const rows = await query<{ notified: number }>(
    store,
    `select notified from ${store.table("migration")}`,
  );
  return rows[0]?.notified ?? 0;
}

/** Never goes back: a controller that lost the lead may still be telling. */
export async function setNotified(store: ControlStore, id: number): Promise<void> {
  await query(store, `update ${store.table("migration")} set notified = greatest(notified, $1)`, [
    id,
  ]);
}

/** How long ago the last event of a kind was, ms, by the server's clock; undefined: never. */
export async function eventAge(store: ControlStore, kind: string): Promise<number | undefined> {
  const rows = await query<{ ms: number }>(
    store,
    `select (extract(epoch from clock_timestamp() - at) * 1000)::float8 as ms
     from ${store.table("event")} where kind = $1 order by id desc limit 1`,
    [kind],
  );
  return rows[0]?.ms;
}

/** The last event of a kind that is younger than `ms`, by the server's clock. */
export async function recentEvent(
  store: ControlStore,
  kind: string,
  ms: number,
): Promise<TimelineEvent | undefined> {
  const rows = await query<EventRow>(
    store,
    `select * from ${store.table("event")}
     where kind = $1 and at > clock_timestamp() - $2::float8 * interval '1 millisecond' order by id desc limit 1`,
    [kind, ms],
  );
  return rows[0];
}

interface EventRow {
  id: number;
  at: Date;
  kind: string;
  by: string;
  phase: Phase;
  epoch: number;
  detail: Record<string, unknown>;
}

/** The last events, oldest first. */
export async function readEvents(
  store: ControlStore,
  options: { readonly limit?: number; readonly afterId?: number } = {},
): Promise<TimelineEvent[]> {
  return query<EventRow>(
    store,
    `select * from (
       select id, at, kind, by, phase, epoch, detail from ${store.table("event")} where id > $2 order by id desc limit $1) e
     order by id`,
    [options.limit ?? 1_000, options.afterId ?? 0],
  );
}

/** What a flip measured (DESIGN §5). Measures are null when no sidecar reported any. */
export interface Receipt {
  readonly kind: "flip" | "drill" | "rollback";
  /** false: it was undone, nothing moved; `why` says what was in the way. */
  readonly ok: boolean;
  readonly from: Side;
  readonly to: Side;
  /** The epoch that is active after it. */
  readonly epoch: number;
  readonly writes_held: number | null;
  readonly hold_ms: { readonly max: number; readonly p50: number; readonly p99: number } | null;
  readonly failed: number | null;
  readonly steps: readonly { readonly name: string; readonly ms: number }[];
  readonly why: string | null;
}

export async function addReceipt(store: ControlStore, receipt: Receipt): Promise<void> {
  await query(
    store,
    `insert into ${store.table("receipt")} (kind, ok, receipt) values ($1, $2, $3)`,
    [receipt.kind, receipt.ok, JSON.stringify(receipt)],
  );
}

/** The last drill, good or not; undefined: none. */
export async function lastDrill(
  store: ControlStore,
): Promise<{ readonly receipt: Receipt; readonly ageMs: number } | undefined> {
  const rows = await query<{ receipt: Receipt; ms: number }>(
    store,
    `select receipt, (extract(epoch from clock_timestamp() - at) * 1000)::float8 as ms
     from ${store.table("receipt")} where kind = 'drill' order by id desc limit 1`,
  );
  return rows[0] === undefined ? undefined : { receipt: rows[0].receipt, ageMs: rows[0].ms };
}

/** The last receipts, newest first. */
export async function readReceipts(
  store: ControlStore,
  limit = 20,
): Promise<(Receipt & { readonly at: Date })[]> {
  const rows = await query<{ at: Date; receipt: Receipt }>(
    store,
    `select at, receipt from ${store.table("receipt")} order by id desc limit $1`,
    [limit],
  );
  return rows.map((row) => ({ ...row.receipt, at: row.at }));
}

export interface Approval {
  readonly phase: Phase;
  readonly name: string;
  readonly reason: string | undefined;
  readonly at: Date;
}

/** Records that `name` approves `phase`. False if that person's approval already stands. */
export async function addApproval(
  store: ControlStore,
  approval: { readonly phase: Phase; readonly name: string; readonly reason?: string },
): Promise<boolean> {
  const rows = await query(
    store,
    `insert into ${store.table("approval")} (phase, name, reason) values ($1, $2, $3)
     on conflict (phase, name) where used is null do nothing returning id`,
    [approval.phase, approval.name, approval.reason ?? null],
  );
  return rows.length === 1;
}

/** Approvals that still stand. */
export async function readApprovals(store: ControlStore): Promise<Approval[]> {
  const rows = await query<{ phase: Phase; name: string; reason: string | null; at: Date }>(
    store,
    `select phase, name, reason, at from ${store.table("approval")} where used is null order by id`,
  );
  return rows.map((row) => ({ ...row, reason: row.reason ?? undefined }));
}

/** An approval is for one entry into a phase: going there again after a rollback asks again. */
export async function useApprovals(store: ControlStore, phase: Phase): Promise<void> {
  await query(
    store,
    `update ${store.table("approval")} set used = clock_timestamp() where phase = $1 and used is null`,
    [phase],
  );
}
