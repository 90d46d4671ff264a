import { Gauge, Registry } from "prom-client";
import { PHASES, SIDES } from "../config/words.ts";
import type { Status } from "./status.ts";

/** Prometheus text of a status: made anew for every scrape, so that no gauge outlives what it told of. */
export async function renderMetrics(status: Status): Promise<string> {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: readonly string[] = []) =>
    new Gauge({
      name: `crossfade_${name}`,
      help,
      labelNames: [...labelNames],
      registers: [registry],
    });

  const phase = gauge("phase", "1 for the phase the migration is in", ["phase"]);
  for (const each of PHASES) phase.set({ phase: each }, status.phase === each ? 1 : 0);
  const authority = gauge("authority", "1 for the side that takes writes", ["side"]);
  for (const side of SIDES) authority.set({ side }, status.authority === side ? 1 : 0);
  gauge("epoch", "Epoch of the active direction").set(status.epoch);
  gauge("reads_new_share", "Share of reads that new answers, 0 to 1").set(status.reads.new);
  mirrorMetrics(gauge, status);
  backfillMetrics(gauge, status);
  shadowMetrics(gauge, status);
  gauge("quarantine_keys", "Keys left behind and not accepted").set(status.quarantine);
  gauge("sidecars", "Registered sidecars").set(status.sidecars.length);
  gauge("controller_leading", "1 while some controller leads").set(
    status.controller.leading ? 1 : 0,
  );
  const gates = gauge("gate", "1 pass, 0 fail, -1 unknown: gates of the next phase", ["gate"]);
  for (const { name, state } of status.gates)
    gates.set({ gate: name }, { pass: 1, fail: 0, unknown: -1 }[state]);
  const reachable = gauge("database_up", "1 while the database of a side answers", ["side"]);
  const refused = gauge("refused_writes", "Writes the guard has refused since it was installed", [
    "side",
  ]);
  for (const side of SIDES) {
    const database = status.databases[side];
    reachable.set({ side }, database.reachable ? 1 : 0);
    if (database.reachable) refused.set({ side }, database.refused_writes);
  }
  return registry.metrics();
}

type MakeGauge = (name: string, help: string, labelNames?: readonly string[]) => Gauge;

function mirrorMetrics(gauge: MakeGauge, { mirror }: Status): void {
  gauge("mirror_up", "1 while the mirror runs").set(mirror.state === "running" ? 1 : 0);
  if (mirror.lag_ms !== null)
    gauge("mirror_lag_ms", "Age of the oldest change not yet on the other side").set(mirror.lag_ms);
  gauge("mirror_keys", "Keys synced since the mirror started").set(mirror.keys);
  gauge("mirror_passes", "Passes since the mirror started").set(mirror.passes);
  gauge("mirror_deferred_keys", "Keys that wait for another one").set(mirror.deferred);
}

function backfillMetrics(gauge: MakeGauge, { backfill, verify }: Status): void {
  const chunks = gauge("backfill_chunks", "Chunks of a table", ["table"]);
  const done = gauge("backfill_chunks_done", "Chunks of a table that are copied", ["table"]);
  const rows = gauge("backfill_rows", "Rows of a table that are copied", ["table"]);
  for (const table of backfill.tables) {
    chunks.set({ table: table.table }, table.chunks);
    done.set({ table: table.table }, table.done);
    rows.set({ table: table.table }, table.rows);
  }
  const left = gauge(
    "backfill_eta_seconds",
    "Seconds until a table is copied, at its rate so far",
    ["table"],
  );
  for (const { table, eta_s: seconds } of backfill.tables)
    if (seconds !== null) left.set({ table }, seconds);
  gauge("backfill_throttled", "1 while the throttle has something to say").set(
    backfill.throttle === null ? 0 : 1,
  );
  gauge("backfill_rows_per_second", "Rows copied per second, lately").set(backfill.rows_per_s);
  const differences = gauge("verify_differences", "What the last comparison found", ["kind"]);
  for (const kind of ["missing", "extra", "different"] as const)
    differences.set({ kind }, verify[kind]);
}

function shadowMetrics(gauge: MakeGauge, { shadow }: Status): void {
  const reads = gauge("shadow_reads", "Shadow reads by outcome since the phase was entered", [
    "outcome",
  ]);
  for (const outcome of [
    "samples",
    "mismatches",
    "noise",
    "in_flight",
    "skipped",
    "dropped",
  ] as const)
    reads.set({ outcome }, shadow[outcome]);
  const mismatches = gauge("shadow_mismatches", "Mismatches by route and place in the answer", [
    "route",
    "path",
  ]);
  for (const { route, path, count } of shadow.groups) mismatches.set({ route, path }, count);
}
