import type { Side } from "../../config/words.ts";
import { SIDES } from "../../config/words.ts";
import { query } from "./open.ts";
import type { ControlStore } from "./open.ts";

/**
 * What charts show, from `off` to `done`: the last minutes as they were seen, and before that fewer points the longer the
 * migration lasts, so that the table stays small. It outlives every process.
 */

/** What clients of one side saw since the point before. null: nobody reported, or nothing was asked. */
export interface SideTraffic {
  readonly requests_per_s: number | null;
  readonly errors_per_s: number | null;
  readonly p50_ms: number | null;
  readonly p99_ms: number | null;
}

export interface SeriesPoint {
  /** Unix time, seconds. */
  readonly at: number;
  readonly lag_ms: number | null;
  readonly keys_per_s: number | null;
  /** Share of clients whose reads new answers, 0–1. */
  readonly reads_new: number | null;
  readonly old: SideTraffic;
  readonly new: SideTraffic;
}

type Column = readonly (number | null)[];

/** As columns: what a chart draws, and small on the wire. */
export interface SeriesDocument {
  readonly at: readonly number[];
  readonly lag_ms: Column;
  readonly keys_per_s: Column;
  readonly reads_new: Column;
  readonly old: Readonly<Record<keyof SideTraffic, Column>>;
  readonly new: Readonly<Record<keyof SideTraffic, Column>>;
}

export const SERIES_RANGES = ["recent", "all"] as const;
export type SeriesRange = (typeof SERIES_RANGES)[number];

/** Points stand at multiples of it: of several controllers that sample, one is recorded. */
export const SAMPLE_S = 2;
const RECENT_S = 300;
/** Older points than the recent ones: thinned out to the lower number whenever they are more than the upper. */
const MOST_POINTS = 1_000;
const THINNED_POINTS = 500;

type Measure = keyof SideTraffic;
/** Rates become their mean, latencies and lag their worst: joining must not hide a spike. */
const MEASURES: readonly (readonly [column: string, join: "mean" | "worst"])[] = [
  ["lag_ms", "worst"],
  ["keys_per_s", "mean"],
  ["reads_new", "mean"],
  ...SIDES.flatMap((side) => [
    [`${side}_requests_per_s`, "mean"] as const,
    [`${side}_errors_per_s`, "mean"] as const,
    [`${side}_p50_ms`, "worst"] as const,
    [`${side}_p99_ms`, "worst"] as const,
  ]),
];
const COLUMNS = MEASURES.map(([column]) => column);
const JOINED = MEASURES.map(([column, join]) =>
  join === "worst"
    ? `max(${column})`
    : `sum(${column} * samples) / sum(samples) filter (where ${column} is not null)`,
);

/** Records a point, and joins old ones if there are too many. */
export async function addPoint(store: ControlStore, point: SeriesPoint): Promise<void> {
  const at = Math.floor(point.at / SAMPLE_S) * SAMPLE_S;
  await query(
    store,
    `insert into ${store.table("series")} (at, ${COLUMNS.join(", ")})
     values ($1, ${COLUMNS.map((_, i) => `$${i + 2}`).join(", ")}) on conflict (at) do nothing`,
    [
      at,
      point.lag_ms,
      point.keys_per_s,
      point.reads_new,
      ...SIDES.flatMap((side) => valuesOf(point[side])),
    ],
  );
  await thinOut(store, at - RECENT_S);
}

function valuesOf(side: SideTraffic): (number | null)[] {
  return [side.requests_per_s, side.errors_per_s, side.p50_ms, side.p99_ms];
}

async function thinOut(store: ControlStore, before: number): Promise<void> {
  const rows = await query<{ points: number; seconds: number }>(
    store,
    `select count(*)::int as points, (max(at) - min(at))::float8 as seconds from ${store.table("series")} where at < $1`,
    [before],
  );
  const { points = 0, seconds = 0 } = rows[0] ?? {};
  if (points <= MOST_POINTS) return;
  let width = SAMPLE_S;
  while (seconds / width > THINNED_POINTS - 1) width *= 2;
  await query(
    store,
    `with gone as (delete from ${store.table("series")} where at < $1 returning *)
     insert into ${store.table("series")} (at, samples, ${COLUMNS.join(", ")})
     select max(at), sum(samples), ${JOINED.join(", ")} from gone group by at / $2::bigint`,
    [before, width],
  );
}

/** The last minutes, or everything; with `most`, joined to no more points than that. Empty before the control store is there. */
export async function readSeries(
  store: ControlStore,
  range: SeriesRange,
  most = Number.MAX_SAFE_INTEGER,
): Promise<SeriesDocument> {
  const [found] = await query<{ found: boolean }>(
    store,
    "select to_regclass($1) is not null as found",
    [store.table("series")],
  );
  if (found?.found !== true) return NO_SERIES;
  const rows = await query<Row>(
    store,
    `with shown as (select * from ${store.table("series")}
       where $1 or at > $2::float8),
     width as (select greatest(1, ceil((max(at) - min(at) + 1) / $3::float8))::bigint as s, min(at) as first from shown)
     select max(at)::float8 as at, ${JOINED.map((sql, i) => `${sql} as ${COLUMNS[i]}`).join(", ")}
     from shown, width group by (at - width.first) / width.s order by 1`,
    // By the clock that the points have their times from: that of a controller.
    [range === "all", Date.now() / 1000 - RECENT_S, most],
  );
  return columnsOf(rows);
}

type Row = { readonly at: number } & Readonly<Record<string, number | null>>;

function columnsOf(rows: readonly Row[]): SeriesDocument {
  const column = (name: string, unit = 0.01): Column =>
    rows.map((row) => {
      const value = row[name] ?? null;
      return value === null ? null : Math.round(value / unit) / Math.round(1 / unit);
    });
  const side = (name: Side): Record<Measure, Column> => ({
    requests_per_s: column(`${name}_requests_per_s`),
    errors_per_s: column(`${name}_errors_per_s`),
    p50_ms: column(`${name}_p50_ms`),
    p99_ms: column(`${name}_p99_ms`),
  });
  return {
    at: rows.map(({ at }) => at),
    lag_ms: column("lag_ms"),
    keys_per_s: column("keys_per_s"),
    reads_new: column("reads_new", 0.0001),
    old: side("old"),
    new: side("new"),
  };
}

export const NO_SERIES = columnsOf([]);
