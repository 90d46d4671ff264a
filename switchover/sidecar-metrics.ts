import { LATENCY_BOUNDS_S } from "../store/control/request-report.ts";
import type { SidecarStats } from "../store/control/sidecars.ts";

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [value: number, labels?: Labels];

interface Distribution {
  readonly labels: Labels;
  /** Not cumulative; one more than there are bounds. */
  readonly buckets: readonly number[];
  readonly sum: number;
}

interface Described {
  readonly name: string;
  readonly help: string;
  /** Besides `sidecar`, its id. */
  readonly labels: readonly string[];
}

interface ValueMetric extends Described {
  readonly type: "gauge" | "counter";
  readonly values: (stats: SidecarStats) => readonly Sample[];
}

interface HistogramMetric extends Described {
  readonly type: "histogram";
  readonly values: (stats: SidecarStats) => readonly Distribution[];
}

const one = (value: number | undefined): Sample[] => (value === undefined ? [] : [[value]]);

/** What each sidecar tells with its heartbeats, and the operator port for all of them; docs/metrics.md is made of this list too. */
export const SIDECAR_METRICS: readonly (ValueMetric | HistogramMetric)[] = [
  {
    name: "crossfade_sidecar_requests_total",
    type: "counter",
    help: "Requests an app was asked, by the plan's route and the answer's class; `none`: no answer. One that fell back counts on both sides",
    labels: ["side", "kind", "route", "answer"],
    values: ({ requests = [] }) =>
      requests.flatMap(({ side, kind, route, answers }) =>
        Object.entries(answers).map(
          ([answer, count]) => [count, { side, kind, route, answer }] as const,
        ),
      ),
  },
  {
    name: "crossfade_sidecar_request_duration_seconds",
    type: "histogram",
    help: "From a request's head to the end of its answer, holds included",
    labels: ["side", "kind", "route"],
    values: ({ requests = [] }) =>
      requests.map(({ side, kind, route, buckets, seconds }) => ({
        labels: { side, kind, route },
        buckets,
        sum: seconds,
      })),
  },
  {
    name: "crossfade_sidecar_in_flight_requests",
    type: "gauge",
    help: "Requests that are not answered yet",
    labels: [],
    values: (stats) => one(stats.in_flight),
  },
  {
    name: "crossfade_sidecar_in_flight_writes",
    type: "gauge",
    help: "Writes that an app has and has not answered: a flip waits for them",
    labels: [],
    values: (stats) => one(stats.in_flight_writes),
  },
  {
    name: "crossfade_sidecar_streams",
    type: "gauge",
    help: "Open WebSockets and other upgraded connections",
    labels: [],
    values: ({ streams }) => one(streams),
  },
  {
    name: "crossfade_sidecar_held_writes",
    type: "gauge",
    help: "Writes that a hold keeps waiting now",
    labels: [],
    values: ({ held }) => one(held?.now),
  },
  {
    name: "crossfade_sidecar_held_writes_total",
    type: "counter",
    help: "Writes that holds kept waiting",
    labels: [],
    values: ({ held }) => one(held?.total),
  },
  {
    name: "crossfade_sidecar_held_seconds_total",
    type: "counter",
    help: "How long those waited together",
    labels: [],
    values: ({ held }) => one(held?.total_seconds),
  },
  {
    name: "crossfade_sidecar_fallbacks_total",
    type: "counter",
    help: "Reads that new could not answer and old did",
    labels: [],
    values: ({ fallbacks }) => one(fallbacks),
  },
  {
    name: "crossfade_sidecar_breaker_open",
    type: "gauge",
    help: "1 while the new app is left alone because it does not answer",
    labels: [],
    values: ({ reads }) => (reads === undefined ? [] : [[reads.breaker === "open" ? 1 : 0]]),
  },
  {
    name: "crossfade_sidecar_breaker_opened_total",
    type: "counter",
    help: "How often that began",
    labels: [],
    values: ({ reads }) => one(reads?.breaker_opened),
  },
  {
    name: "crossfade_sidecar_reads_new_ratio",
    type: "gauge",
    help: "Share of clients whose reads new answers here at this moment, 0 to 1",
    labels: [],
    values: ({ reads }) => one(reads?.share),
  },
  {
    name: "crossfade_sidecar_bound_clients",
    type: "gauge",
    help: "Clients whose next read goes to the authority: what they have seen is not on the other side yet",
    labels: [],
    values: ({ reads }) => one(reads?.pinned),
  },
  {
    name: "crossfade_sidecar_redis_up",
    type: "gauge",
    help: "1 while tokens can be kept in Redis; absent where they are not kept there",
    labels: [],
    values: ({ reads }) => (reads?.redis == null ? [] : [[reads.redis === "ok" ? 1 : 0]]),
  },
  {
    name: "crossfade_sidecar_unpromised_answers_total",
    type: "counter",
    help: "Answers sent although another sidecar might not know what they bind",
    labels: [],
    values: ({ reads }) => one(reads?.unpromised),
  },
];

/** Their Prometheus text. prom-client's histograms only take single observations, so the text is made here. */
export function renderSidecarMetrics(
  sidecars: readonly { readonly id: string; readonly stats: SidecarStats }[],
): string {
  return SIDECAR_METRICS.map((metric) => {
    const lines = sidecars.flatMap(({ id, stats }) => linesOf(metric, id, stats));
    return `# HELP ${metric.name} ${metric.help}\n# TYPE ${metric.name} ${metric.type}\n${lines.join("")}`;
  }).join("\n");
}

function linesOf(metric: ValueMetric | HistogramMetric, id: string, stats: SidecarStats): string[] {
  if (metric.type !== "histogram") {
    return metric
      .values(stats)
      .map(([value, labels = {}]) => line(metric.name, { sidecar: id, ...labels }, value));
  }
  return metric.values(stats).flatMap(({ labels: own, buckets, sum }) => {
    const labels = { sidecar: id, ...own };
    let count = 0;
    const lines = buckets.map((inBucket, index) => {
      count += inBucket;
      const le = String(LATENCY_BOUNDS_S[index] ?? "+Inf");
      return line(`${metric.name}_bucket`, { ...labels, le }, count);
    });
    lines.push(line(`${metric.name}_sum`, labels, sum));
    lines.push(line(`${metric.name}_count`, labels, count));
    return lines;
  });
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`);
  return `${name}{${pairs.join(",")}} ${value}\n`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
