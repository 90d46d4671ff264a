import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../config/lifecycle.ts";
import { messageOf } from "../config/errors.ts";
import type { Side } from "../config/words.ts";
import { SIDES } from "../config/words.ts";
import type { SidecarStats } from "../proxy/stats-types.ts";
import type { ControlStore } from "../store/control/open.ts";
import { isInstalled } from "../store/control/schema.ts";
import { SAMPLE_S, addPoint } from "../store/control/series.ts";
import type { SeriesPoint, SideTraffic } from "../store/control/series.ts";
import { readSidecars } from "../store/control/sidecars.ts";
import { readWorkers } from "../store/control/workers.ts";
import { FRESH_MS } from "./gate-facts.ts";

/** What charts show, made from the heartbeats of the others and recorded in the control store. */

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function worst(values: readonly number[]): number | null {
  return values.length === 0 ? null : Math.max(...values);
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
    /** Share of clients whose reads new answers there; undefined: it did not say. */
    readonly share: number | undefined;
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
    reads_new: mean(now.sidecars.flatMap(({ share }) => (share === undefined ? [] : [share]))),
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
  signal: AbortSignal,
): Promise<void> {
  let before: Heartbeats | undefined;
  while (!signal.aborted) {
    try {
      const now = await readHeartbeats(store);
      if (now !== undefined && (now.mirror !== undefined || now.sidecars.length > 0))
        await addPoint(store, pointBetween(before, now));
      before = now;
    } catch (error) {
      before = undefined;
      log.debug({ err: error }, `charts: ${messageOf(error)}`);
    }
    await sleep(SAMPLE_S * 1000, undefined, { signal, ref: false }).catch(() => {});
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
      .map(({ id, stats }) => ({ id, traffic: trafficOf(stats), share: stats.reads?.share })),
  };
}

/** A heartbeat is what a sidecar of whatever version wrote. */
function trafficOf(stats: object): SidecarStats["traffic"] {
  if (!("traffic" in stats) || !Array.isArray(stats.traffic)) return [];
  return (stats.traffic as SidecarStats["traffic"]).filter(
    (entry) => (SIDES as readonly string[]).includes(entry.side) && entry.recent !== undefined,
  );
}
