import { useEffect, useRef } from "preact/hooks";
import { signal } from "@preact/signals";
import uPlot from "uplot";
import type { SeriesDocument } from "../../store/control/series.ts";
import { Card } from "./explain.tsx";
import { range, series } from "./state.ts";

/** Old against new over time. Old is a solid line, new a dashed one: colour is never the only difference. */

interface Line {
  readonly name: string;
  readonly side: "old" | "new" | "plain";
  readonly of: (document: SeriesDocument) => readonly (number | null)[];
}

interface ChartPlan {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly Line[];
}

const bySide = (what: "p99_ms" | "errors_per_s" | "requests_per_s"): readonly Line[] =>
  (["old", "new"] as const).map((side) => ({
    name: side,
    side,
    of: (document) => document[side][what],
  }));

const CHARTS: readonly ChartPlan[] = [
  { title: "Latency, 99th percentile", unit: "ms", lines: bySide("p99_ms") },
  { title: "Errors", unit: "per s", lines: bySide("errors_per_s") },
  { title: "Requests", unit: "per s", lines: bySide("requests_per_s") },
  {
    title: "Mirror lag",
    unit: "ms",
    lines: [{ name: "lag", side: "plain", of: (document) => document.lag_ms }],
  },
];

const RECENT_S = 300;
const dark = matchMedia("(prefers-color-scheme: dark)");
/** Counts changes between light and dark: the lines are drawn again in the new colours. */
const scheme = signal(0);
dark.addEventListener("change", () => scheme.value++);

export function Charts() {
  return (
    <Card title="Old against new" id="charts" wide aside={<RangeChoice />}>
      <div class="charts">
        {CHARTS.map((plan) => (
          <Chart key={`${plan.title} ${scheme.value} ${range.value}`} plan={plan} />
        ))}
      </div>
    </Card>
  );
}

function RangeChoice() {
  return (
    <div class="choice" role="group" aria-label="Time shown in the charts">
      {(["recent", "all"] as const).map((value) => (
        <button
          key={value}
          type="button"
          aria-pressed={range.value === value}
          onClick={() => (range.value = value)}
        >
          {value === "recent" ? "Last 5 min" : "All"}
        </button>
      ))}
    </div>
  );
}

function Chart({ plan }: { readonly plan: ChartPlan }) {
  const frame = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const document = series.value;

  useEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const made = new uPlot(options(plan, element.clientWidth), [[]], element);
    chart.current = made;
    const observer = new ResizeObserver(() =>
      made.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, []);
  useEffect(() => {
    if (document === undefined) return;
    chart.current?.setData([
      document.at.slice(),
      ...plan.lines.map((line) => line.of(document).slice()),
    ] as uPlot.AlignedData);
  }, [document]);

  return (
    <figure class="chart">
      <figcaption>
        {plan.title} <span class="soft">({plan.unit})</span>
        <span class="legend">
          {plan.lines.map((line) => (
            <span key={line.name}>
              {line.side !== "plain" && <i class={`line ${line.side}`} aria-hidden="true" />}{" "}
              {line.name} {latest(document, line)}
            </span>
          ))}
        </span>
      </figcaption>
      <div ref={frame} aria-hidden="true" />
    </figure>
  );
}

/** The newest value: what a screen reader gets of the line. */
function latest(document: SeriesDocument | undefined, line: Line): string {
  const value = document === undefined ? null : line.of(document).at(-1);
  return value === null || value === undefined ? "–" : String(Math.round(value * 10) / 10);
}

const HEIGHT = 150;

function options(plan: ChartPlan, width: number): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: color("--soft"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    padding: [8, 26, 0, 0],
    scales: {
      x: { range: (_, min, max) => xRange(min, max) },
      y: { range: (_, __, max) => [0, Math.max(1, (max ?? 0) * 1.1)] },
    },
    axes: [
      { ...axis, space: 70, size: 26, values: clockTimes },
      { ...axis, size: 44, space: 30 },
    ],
    series: [
      {},
      ...plan.lines.map((line) => ({
        label: line.name,
        stroke: color(line.side === "plain" ? "--ink" : `--${line.side}`),
        width: 2,
        ...(line.side === "new" ? { dash: [7, 4] } : {}),
        points: { show: false },
        spanGaps: false,
      })),
    ],
  };
}

/** With seconds where minutes alone would repeat themselves. */
function clockTimes(_: uPlot, at: number[]): string[] {
  const seconds = at.some((time) => time % 60 !== 0);
  return at.map((time) =>
    new Date(time * 1000).toLocaleTimeString("en-GB", {
      hour: "2-digit",
      minute: "2-digit",
      ...(seconds ? { second: "2-digit" } : {}),
    }),
  );
}

/** Recent: always five minutes, so that the picture moves and does not stretch. */
function xRange(min: number | null, max: number | null): [number, number] {
  const end = max ?? Date.now() / 1000;
  return range.peek() === "recent" ? [end - RECENT_S, end] : [Math.min(min ?? end, end - 60), end];
}
