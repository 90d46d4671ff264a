import { Counter, Gauge, Registry } from "prom-client";
import { PHASES, SIDES } from "../config/words.ts";
import type { Status } from "./status.ts";

/** One metric of the operator port, and how a status gives its values. */
export interface MetricDefinition {
  /** With prefix, unit and, where it only grows, `_total`. */
  readonly name: string;
  readonly type: "gauge" | "counter";
  readonly help: string;
  readonly labels: readonly string[];
  /** A value for each combination of labels; none: nothing to say. */
  readonly values: (status: Status) => readonly Sample[];
}

type Sample = readonly [value: number, labels?: Readonly<Record<string, string>>];

const when = (value: number | null): Sample[] => (value === null ? [] : [[value]]);
const flag = (value: boolean): Sample[] => [[value ? 1 : 0]];
/** A sidecar that was not heard of for this long is silent, ms. */
const SILENT_MS = 5_000;

/** Everything `/metrics` of the operator port tells; docs/metrics.md is made of this list. */
export const METRICS: readonly MetricDefinition[] = [
  {
    name: "crossfade_phase",
    type: "gauge",
    help: "1 for the phase the migration is in",
    labels: ["phase"],
    values: ({ phase }) => PHASES.map((each) => [phase === each ? 1 : 0, { phase: each }]),
  },
  {
    name: "crossfade_authority",
    type: "gauge",
    help: "1 for the side that takes writes",
    labels: ["side"],
    values: ({ authority }) => SIDES.map((side) => [authority === side ? 1 : 0, { side }]),
  },
  {
    name: "crossfade_epoch",
    type: "gauge",
    help: "Epoch of the active direction; grows by every flip",
    labels: [],
    values: ({ epoch }) => [[epoch]],
  },
  {
    name: "crossfade_reads_new_ratio",
    type: "gauge",
    help: "Share of reads that new answers, 0 to 1",
    labels: [],
    values: ({ reads }) => [[reads.new]],
  },
  {
    name: "crossfade_paused",
    type: "gauge",
    help: "1 while a person, or a limit, has paused it",
    labels: ["what"],
    values: ({ paused }) => [
      [paused.backfill ? 1 : 0, { what: "backfill" }],
      [paused.mirror ? 1 : 0, { what: "mirror" }],
    ],
  },
  {
    name: "crossfade_gap",
    type: "gauge",
    help: "1 while a gap is open: everything is copied again and all reads go to the authority",
    labels: [],
    values: ({ gap }) => flag(gap !== null),
  },
  {
    name: "crossfade_mirror_up",
    type: "gauge",
    help: "1 while the mirror runs",
    labels: [],
    values: ({ mirror }) => flag(mirror.state === "running"),
  },
  {
    name: "crossfade_mirror_lag_seconds",
    type: "gauge",
    help: "Age of the oldest change not yet on the other side; absent while no mirror runs",
    labels: [],
    values: ({ mirror }) => when(mirror.lag_ms === null ? null : mirror.lag_ms / 1_000),
  },
  {
    name: "crossfade_mirror_keys_total",
    type: "counter",
    help: "Keys synced since the mirror started",
    labels: [],
    values: ({ mirror }) => [[mirror.keys]],
  },
  {
    name: "crossfade_mirror_passes_total",
    type: "counter",
    help: "Passes since the mirror started",
    labels: [],
    values: ({ mirror }) => [[mirror.passes]],
  },
  {
    name: "crossfade_mirror_deferred_keys",
    type: "gauge",
    help: "Keys that wait for another one",
    labels: [],
    values: ({ mirror }) => [[mirror.deferred]],
  },
  {
    name: "crossfade_quarantine_keys",
    type: "gauge",
    help: "Keys left behind and not accepted",
    labels: [],
    values: ({ quarantine }) => when(quarantine),
  },
  {
    name: "crossfade_backfill_chunks",
    type: "gauge",
    help: "Chunks of a table",
    labels: ["table"],
    values: ({ backfill }) => backfill.tables.map(({ table, chunks }) => [chunks, { table }]),
  },
  {
    name: "crossfade_backfill_copied_chunks",
    type: "gauge",
    help: "Chunks of a table that are copied",
    labels: ["table"],
    values: ({ backfill }) => backfill.tables.map(({ table, done }) => [done, { table }]),
  },
  {
    name: "crossfade_backfill_failed_chunks",
    type: "gauge",
    help: "Chunks of a table that could not be copied; resume tries them again",
    labels: ["table"],
    values: ({ backfill }) => backfill.tables.map(({ table, failed }) => [failed, { table }]),
  },
  {
    name: "crossfade_backfill_copied_rows",
    type: "gauge",
    help: "Rows of a table that are copied",
    labels: ["table"],
    values: ({ backfill }) => backfill.tables.map(({ table, rows }) => [rows, { table }]),
  },
  {
    name: "crossfade_backfill_rows_per_second",
    type: "gauge",
    help: "Rows copied per second, lately",
    labels: [],
    values: ({ backfill }) => [[backfill.rows_per_s]],
  },
  {
    name: "crossfade_backfill_eta_seconds",
    type: "gauge",
    help: "Seconds until a table is copied, at its rate so far",
    labels: ["table"],
    values: ({ backfill }) =>
      backfill.tables.flatMap(({ table, eta_s: seconds }) =>
        seconds === null ? [] : [[seconds, { table }] as const],
      ),
  },
  {
    name: "crossfade_backfill_throttled",
    type: "gauge",
    help: "1 while the throttle has something to say; status says what",
    labels: [],
    values: ({ backfill }) => flag(backfill.throttle !== null),
  },
  {
    name: "crossfade_verify_differences",
    type: "gauge",
    help: "What the last comparison found",
    labels: ["kind"],
    values: ({ verify }) =>
      (["missing", "extra", "different"] as const).map((kind) => [verify[kind], { kind }]),
  },
  {
    name: "crossfade_verify_clean_timestamp_seconds",
    type: "gauge",
    help: "When the last clean comparison of everything began, in seconds since 1970; absent before the first",
    labels: [],
    values: ({ verify }) =>
      when(verify.clean_at === null ? null : Date.parse(verify.clean_at) / 1_000),
  },
  {
    name: "crossfade_shadow_reads_total",
    type: "counter",
    help: "Shadow reads by outcome since the phase was entered",
    labels: ["outcome"],
    values: ({ shadow }) =>
      (["samples", "mismatches", "noise", "unjudged", "skipped", "dropped"] as const).map(
        (outcome) => [shadow[outcome], { outcome }],
      ),
  },
  {
    name: "crossfade_shadow_mismatches_total",
    type: "counter",
    help: "Mismatches by route and place in the answer",
    labels: ["route", "path"],
    values: ({ shadow }) => shadow.groups.map(({ route, path, count }) => [count, { route, path }]),
  },
  {
    name: "crossfade_gate",
    type: "gauge",
    help: "1 pass, 0 fail, -1 unknown: gates of the next phase",
    labels: ["gate"],
    values: ({ gates }) =>
      gates.map(({ name, state }) => [{ pass: 1, fail: 0, unknown: -1 }[state], { gate: name }]),
  },
  {
    name: "crossfade_flip_longest_hold_seconds",
    type: "gauge",
    help: "Longest hold of the last flip or drill; absent before the first",
    labels: [],
    values: ({ flip }) => when(flip?.hold_ms == null ? null : flip.hold_ms.max / 1_000),
  },
  {
    name: "crossfade_flip_ok",
    type: "gauge",
    help: "1 if the last flip or drill went through, 0 if it was undone; absent before the first",
    labels: [],
    values: ({ flip }) => (flip === null ? [] : flag(flip.ok)),
  },
  {
    name: "crossfade_sidecars",
    type: "gauge",
    help: "Registered sidecars",
    labels: [],
    values: ({ sidecars }) => [[sidecars.length]],
  },
  {
    name: "crossfade_sidecars_silent",
    type: "gauge",
    help: "Sidecars that were not heard of for 5 seconds",
    labels: [],
    values: ({ sidecars }) => [[sidecars.filter(({ seen_ms: ms }) => ms > SILENT_MS).length]],
  },
  {
    name: "crossfade_sidecars_behind",
    type: "gauge",
    help: "Sidecars that route by an older epoch",
    labels: [],
    values: ({ sidecars, epoch }) => [[sidecars.filter((one) => one.epoch < epoch).length]],
  },
  {
    name: "crossfade_sidecars_new_app_down",
    type: "gauge",
    help: "Sidecars whose circuit breaker is open: the authority answers for the new app",
    labels: [],
    values: ({ sidecars }) => [[sidecars.filter((one) => one.new_app_down).length]],
  },
  {
    name: "crossfade_controller_leading",
    type: "gauge",
    help: "1 while some controller leads",
    labels: [],
    values: ({ controller }) => flag(controller.leading),
  },
  {
    name: "crossfade_control_store_up",
    type: "gauge",
    help: "1 while the control store can be read",
    labels: [],
    values: ({ phase }) => flag(phase !== "unknown"),
  },
  {
    name: "crossfade_database_up",
    type: "gauge",
    help: "1 while the database of a side answers",
    labels: ["side"],
    values: ({ databases }) => SIDES.map((side) => [databases[side].reachable ? 1 : 0, { side }]),
  },
  {
    name: "crossfade_refused_writes_total",
    type: "counter",
    help: "Writes the guard of a side has refused since it was installed",
    labels: ["side"],
    values: ({ databases }) =>
      SIDES.flatMap((side) => {
        const database = databases[side];
        return database.reachable ? [[database.refused_writes, { side }] as const] : [];
      }),
  },
];

/** Prometheus text of a status: made anew for every scrape, so that nothing outlives what it told of. */
export async function renderMetrics(status: Status): Promise<string> {
  const registry = new Registry();
  for (const { name, type, help, labels, values } of METRICS) {
    const options = { name, help, labelNames: [...labels], registers: [registry] };
    const samples = values(status);
    if (type === "gauge") {
      const gauge = new Gauge(options);
      for (const [value, of = {}] of samples) gauge.set(of, value);
    } else {
      const counter = new Counter(options);
      for (const [value, of = {}] of samples) counter.inc(of, value);
    }
  }
  return registry.metrics();
}
