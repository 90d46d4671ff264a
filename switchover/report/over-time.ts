import type { SeriesDocument } from "../../store/control/series.ts";
import type { Chart } from "./charts.ts";
import type { Report, Stay } from "./report.ts";
import type { Section } from "./sections.ts";

/** Traffic and mirror from the first sample to the last: charts, and the numbers they draw. */
export function overTime({ series, stays }: Report): Section {
  const columns: readonly (readonly [string, readonly (number | null)[]])[] = [
    ["reads by new, %", percents(series)],
    ["requests/s old", series.old.requests_per_s],
    ["requests/s new", series.new.requests_per_s],
    ["errors/s old", series.old.errors_per_s],
    ["errors/s new", series.new.errors_per_s],
    ["p50 old, ms", series.old.p50_ms],
    ["p50 new, ms", series.new.p50_ms],
    ["p99 old, ms", series.old.p99_ms],
    ["p99 new, ms", series.new.p99_ms],
    ["lag, ms", series.lag_ms],
    ["keys/s", series.keys_per_s],
  ];
  return {
    title: "Over time",
    columns: ["until", "phase", ...columns.map(([name]) => name)],
    rows: series.at.map((time, i) => [
      new Date(time * 1000).toISOString(),
      phaseAt(stays, time * 1000),
      ...columns.map(([, values]) => String(values[i] ?? "–")),
    ]),
    empty:
      "No sample was recorded: a controller (`crossfade up` or `control`) records them while it runs.",
    charts: charts(series),
  };
}

function charts(series: SeriesDocument): Chart[] {
  const bySide = (what: "requests_per_s" | "errors_per_s" | "p99_ms"): Chart["lines"] =>
    (["old", "new"] as const).map((side) => ({
      name: side,
      look: side,
      values: series[side][what],
    }));
  const alone = (name: string, values: readonly (number | null)[]): Chart["lines"] => [
    { name, look: "plain", values },
  ];
  return [
    { title: "Reads answered by new", unit: "%", lines: alone("share", percents(series)) },
    { title: "Requests", unit: "per s", lines: bySide("requests_per_s") },
    { title: "Latency, 99th percentile", unit: "ms", lines: bySide("p99_ms") },
    { title: "Errors", unit: "per s", lines: bySide("errors_per_s") },
    { title: "Lag of the mirror", unit: "ms", lines: alone("lag", series.lag_ms) },
    { title: "Keys mirrored", unit: "per s", lines: alone("keys", series.keys_per_s) },
  ];
}

function percents({ reads_new: shares }: SeriesDocument): (number | null)[] {
  return shares.map((share) => (share === null ? null : Math.round(share * 10_000) / 100));
}

/** Before the first phase was entered: off. */
function phaseAt(stays: readonly Stay[], ms: number): string {
  return stays.findLast(({ from }) => Date.parse(from) <= ms)?.phase ?? "off";
}
