import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../config/lifecycle.ts";
import { messageOf } from "../config/errors.ts";
import type { Side } from "../config/words.ts";
import { SIDES } from "../config/words.ts";
import type { SidecarStats } from "../proxy/stats-types.ts";
import type { ControlStore } from "../store/control/open.ts";
import { isInstalled } from "../store/control/schema.ts";
import { readSidecars } from "../store/control/sidecars.ts";
import { readWorkers } from "../store/control/workers.ts";
import { FRESH_MS } from "./gates.ts";

/**
 * What the console's charts show: a bounded memory of this process, made from the heartbeats of the others. The last
 * minutes are kept as they were seen; for the whole migration neighbouring points are joined whenever there are too many.
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
  readonly old: SideTraffic;
  readonly new: SideTraffic;
}

type Column = readonly (number | null)[];

/** As columns: what a chart draws, and small on the wire. */
export interface SeriesDocument {
  readonly at: readonly number[];
  readonly lag_ms: Column;
  readonly keys_per_s: Column;
  readonly old: Readonly<Record<keyof SideTraffic, Column>>;
  readonly new: Readonly<Record<keyof SideTraffic, Column>>;
}

export const SERIES_RANGES = ["recent", "all"] as const;
export type SeriesRange = (typeof SERIES_RANGES)[number];

const SAMPLE_MS = 2_000;
/** Five minutes and a little more. */
const RECENT_POINTS = 180;
const ALL_POINTS = 1_000;

/** The two rings. */
export class Series {
  #recent: SeriesPoint[] = [];
  #all: SeriesPoint[] = [];
  /** How many samples one point of `all` stands for; doubles whenever the ring is full. */
  #perPoint = 1;
  #pending: SeriesPoint[] = [];

  add(point: SeriesPoint): void {
    this.#recent.push(point);
    if (this.#recent.length > RECENT_POINTS) this.#recent.shift();
    this.#pending.push(point);
    if (this.#pending.length < this.#perPoint) return;
    this.#all.push(joinPoints(this.#pending));
    this.#pending = [];
    if (this.#all.length < ALL_POINTS) return;
    const joined: SeriesPoint[] = [];
    for (let i = 0; i < this.#all.length; i += 2)
      joined.push(joinPoints(this.#all.slice(i, i + 2)));
    this.#all = joined;
    this.#perPoint *= 2;
  }

  read(range: SeriesRange): SeriesDocument {
    return columns(range === "recent" ? this.#recent : this.#all);
  }
}

/** Rates become their mean, latencies and lag their worst: joining must not hide a spike. */
function joinPoints(points: readonly SeriesPoint[]): SeriesPoint {
  const side = (which: Side): SideTraffic => ({
    requests_per_s: mean(points.map((point) => point[which].requests_per_s)),
    errors_per_s: mean(points.map((point) => point[which].errors_per_s)),
    p50_ms: worst(points.map((point) => point[which].p50_ms)),
    p99_ms: worst(points.map((point) => point[which].p99_ms)),
  });
  return {
    at: points.at(-1)?.at ?? 0,
    lag_ms: worst(points.map((point) => point.lag_ms)),
    keys_per_s: mean(points.map((point) => point.keys_per_s)),
    old: side("old"),
    new: side("new"),
  };
}

function columns(points: readonly SeriesPoint[]): SeriesDocument {
  const side = (which: Side) => ({
    requests_per_s: points.map((point) => point[which].requests_per_s),
    errors_per_s: points.map((point) => point[which].errors_per_s),
    p50_ms: points.map((point) => point[which].p50_ms),
    p99_ms: points.map((point) => point[which].p99_ms),
  });
  return {
    at: points.map((point) => point.at),
    lag_ms: points.map((point) => point.lag_ms),
    keys_per_s: points.map((point) => point.keys_per_s),
    old: side("old"),
    new: side("new"),
  };
}

function known(values: Column): number[] {
  return values.filter((value) => value !== null);
}

function mean(values: Column): number | null {
  const all = known(values);
  return all.length === 0 ? null : round(all.reduce((sum, value) => sum + value, 0) / all.length);
}

function worst(values: Column): number | null {
  const all = known(values);
  return all.length === 0 ? null : Math.max(...all);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** What the heartbeats said at one moment. */
export interface Heartbeats {
  /** Unix time, ms. */
  readonly atMs: number;
  /** Only those that were seen lately. */
  readonly mirror:
    | { readonly id: string; readonly lagMs: number | null; readonly keys: number }
    | undefined;
  readonly sidecars: readonly {
    readonly id: string;
    readonly traffic: SidecarStats["traffic"];
  }[];
}

/** The point between two moments. Counters are compared process by process: one that started anew counts from 0. */
export function pointBetween(before: Heartbeats | undefined, now: Heartbeats): SeriesPoint {
  const seconds = before === undefined ? 0 : (now.atMs - before.atMs) / 1000;
  const rate = (grown: number) => (seconds <= 0 ? null : round(Math.max(0, grown) / seconds));
  const side = (which: Side): SideTraffic => {
    const here = now.sidecars.flatMap((sidecar) =>
      sidecar.traffic
        .filter((entry) => entry.side === which && entry.kind !== "stream")
        .map((entry) => ({ entry, earlier: earlierOf(before, sidecar.id, entry) })),
    );
    if (here.length === 0)
      return { requests_per_s: null, errors_per_s: null, p50_ms: null, p99_ms: null };
    const grown = (what: "requests" | "errors") =>
      here.reduce((sum, { entry, earlier }) => sum + grownBy(earlier?.[what], entry[what]), 0);
    const asked = here.filter(({ entry }) => entry.recent.count > 0);
    const slowest = (what: "p50" | "p99") => worst(asked.map(({ entry }) => entry.recent[what]));
    return {
      requests_per_s: rate(grown("requests")),
      errors_per_s: rate(grown("errors")),
      p50_ms: slowest("p50"),
      p99_ms: slowest("p99"),
    };
  };
  const { mirror } = now;
  const mirrorBefore = before?.mirror?.id === mirror?.id ? before?.mirror : undefined;
  return {
    at: Math.round(now.atMs / 1000),
    lag_ms: mirror?.lagMs ?? null,
    keys_per_s:
      mirror === undefined || mirrorBefore === undefined
        ? null
        : rate(grownBy(mirrorBefore.keys, mirror.keys)),
    old: side("old"),
    new: side("new"),
  };
}

type Traffic = SidecarStats["traffic"][number];

function earlierOf(before: Heartbeats | undefined, id: string, now: Traffic): Traffic | undefined {
  return before?.sidecars
    .find((sidecar) => sidecar.id === id)
    ?.traffic.find((entry) => entry.side === now.side && entry.kind === now.kind);
}

/** A sidecar not seen before was counting for longer than this point lasts: it counts from the next one on. */
function grownBy(earlier: number | undefined, now: number): number {
  if (earlier === undefined) return 0;
  return now >= earlier ? now - earlier : now;
}

/** Samples until the signal. An unreachable control store leaves a hole in the charts, nothing else. */
export async function sampleSeries(
  { store, log }: { readonly store: ControlStore; readonly log: Log },
  series: Series,
  signal: AbortSignal,
): Promise<void> {
  let before: Heartbeats | undefined;
  while (!signal.aborted) {
    try {
      const now = await readHeartbeats(store);
      if (now !== undefined && (now.mirror !== undefined || now.sidecars.length > 0))
        series.add(pointBetween(before, now));
      before = now;
    } catch (error) {
      before = undefined;
      log.debug({ err: error }, `charts: ${messageOf(error)}`);
    }
    await sleep(SAMPLE_MS, undefined, { signal, ref: false }).catch(() => {});
  }
}

async function readHeartbeats(store: ControlStore): Promise<Heartbeats | undefined> {
  if (!(await isInstalled(store))) return undefined;
  const [sidecars, mirrors] = await Promise.all([
    readSidecars(store),
    readWorkers(store, "mirror"),
  ]);
  const mirror = mirrors.find(({ seenMs }) => seenMs <= FRESH_MS);
  return {
    atMs: Date.now(),
    mirror:
      mirror === undefined
        ? undefined
        : {
            id: mirror.id,
            lagMs: mirror.stats.state === "running" ? mirror.stats.lag_ms : null,
            keys: mirror.stats.keys,
          },
    sidecars: sidecars
      .filter(({ seenMs }) => seenMs <= FRESH_MS)
      .map(({ id, stats }) => ({ id, traffic: trafficOf(stats) })),
  };
}

/** A heartbeat is what a sidecar of whatever version wrote. */
function trafficOf(stats: object): SidecarStats["traffic"] {
  if (!("traffic" in stats) || !Array.isArray(stats.traffic)) return [];
  return (stats.traffic as SidecarStats["traffic"]).filter(
    (entry) => (SIDES as readonly string[]).includes(entry.side) && entry.recent !== undefined,
  );
}
