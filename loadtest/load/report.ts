import { cpus } from "node:os";
import Table from "cli-table3";
import type { Phase } from "../../config/words.ts";
import type { Receipt } from "../../store/control/history.ts";
import type { BudgetVerdict } from "./budget.ts";

export const WORKLOADS = ["read", "write", "mixed"] as const;
/** `request`: the one request that `--target` sends. */
export type Workload = (typeof WORKLOADS)[number] | "request";

/** rate: a fixed number of requests per second. saturation: as many as the connections get answered. */
export const MODES = ["rate", "saturation"] as const;
export type Mode = (typeof MODES)[number];

/** What was seen of one way to the service, all rounds together. */
export interface Figures {
  readonly requests: number;
  /** Answers that are not 2xx, connections that broke, requests that got no answer. */
  readonly errors: number;
  /** Answered requests per second, one number for each round. */
  readonly rounds: readonly number[];
  /** The median of `rounds`. */
  readonly rate: number;
  readonly p50_ms: number;
  readonly p90_ms: number;
  readonly p99_ms: number;
  readonly p999_ms: number;
  readonly max_ms: number;
  /** The distribution: `[share of requests, ms]`, growing. */
  readonly curve: readonly (readonly [number, number])[];
}

/** One phase, workload and mode: straight at the app and through the sidecar. */
export interface Cell {
  /** null: a service of the user's own, whose phase is not known. */
  readonly phase: Phase | null;
  readonly workload: Workload;
  readonly mode: Mode;
  readonly direct: Figures;
  /** null: only the service itself was measured. */
  readonly through: Figures | null;
}

/** The sidecar's figures divided by those of going direct; null where one of them was not measured. */
export interface Ratios {
  readonly throughput: number | null;
  readonly p50: number | null;
  readonly p90: number | null;
  readonly p99: number | null;
  readonly p999: number | null;
}

export interface FlipsUnderLoad {
  readonly receipts: readonly Receipt[];
  /** What the load through the sidecar saw meanwhile. */
  readonly figures: Figures;
}

/** What one run writes to `loadtest.json` and prints with `--json`. */
export interface LoadReport {
  readonly loadtest: "example" | "target";
  readonly machine: string;
  readonly started_at: string;
  readonly seconds: number;
  readonly rounds: number;
  readonly rate: number;
  readonly connections: number;
  /** Without query and credentials. */
  readonly target: string | null;
  readonly cells: readonly (Cell & { readonly ratios: Ratios })[];
  readonly flips: FlipsUnderLoad | null;
  /** The example's own checks of every answer between the measurements. */
  readonly checked: { readonly failed: number; readonly stale: number } | null;
  readonly budget: BudgetVerdict | null;
}

export function ratiosOf({ mode, direct, through }: Cell): Ratios {
  const ratio = (of: (figures: Figures) => number) => {
    if (through === null) return null;
    const value = of(through) / of(direct);
    return Number.isFinite(value) ? value : null;
  };
  return {
    // At a fixed rate the throughput is what was asked for.
    throughput: mode === "saturation" ? ratio(({ rate }) => rate) : null,
    p50: ratio(({ p50_ms }) => p50_ms),
    p90: ratio(({ p90_ms }) => p90_ms),
    p99: ratio(({ p99_ms }) => p99_ms),
    p999: ratio(({ p999_ms }) => p999_ms),
  };
}

/** `canary, mixed, at a fixed rate` */
export function cellName({ phase, workload, mode }: Pick<Cell, "phase" | "workload" | "mode">) {
  const how = mode === "rate" ? "at a fixed rate" : "at saturation";
  return [...(phase === null ? [] : [phase]), workload, how].join(", ");
}

export function machineName(): string {
  return `${cpus().length} × ${cpus()[0]?.model.trim() ?? "unknown CPU"}, Node ${process.versions.node}`;
}

export const COLUMNS = [
  "phase",
  "workload",
  "load",
  "way",
  "req/s",
  "p50 ms",
  "p90 ms",
  "p99 ms",
  "p99.9 ms",
  "errors",
  "req/s ratio",
  "p50 ratio",
  "p99 ratio",
] as const;

/** The rows of the table, for the terminal and for the page: two for each cell. */
export function tableRows(cells: readonly Cell[]): string[][] {
  return cells.flatMap((cell) => {
    const { phase, workload, mode, direct, through } = cell;
    const ratios = ratiosOf(cell);
    const row = (way: string, figures: Figures, last: readonly string[]) => [
      phase ?? "–",
      workload,
      mode,
      way,
      figures.rate.toFixed(0),
      ...[figures.p50_ms, figures.p90_ms, figures.p99_ms, figures.p999_ms].map(ms),
      String(figures.errors),
      ...last,
    ];
    const compared = [ratios.throughput, ratios.p50, ratios.p99].map((value) =>
      value === null ? "–" : value.toFixed(2),
    );
    return [
      row("direct", direct, ["", "", ""]),
      ...(through === null ? [] : [row("sidecar", through, compared)]),
    ];
  });
}

export function textTable(cells: readonly Cell[]): string {
  const table = new Table({ head: [...COLUMNS], style: { head: [], border: [], compact: true } });
  table.push(...tableRows(cells));
  return table.toString();
}

function ms(value: number): string {
  return Number.isFinite(value) ? value.toFixed(2) : "–";
}
