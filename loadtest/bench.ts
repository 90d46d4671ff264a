import { cpus } from "node:os";
import { parseArgs } from "node:util";
import Table from "cli-table3";

/** One measured value: every round's number. */
export interface Series {
  readonly name: string;
  readonly unit: string;
  readonly values: number[];
}

export interface BenchResult {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly min: number;
  readonly max: number;
}

/** What `npm run bench:NAME -- --json` prints (DESIGN §8). */
export interface BenchReport {
  readonly bench: string;
  readonly machine: string;
  readonly rounds: number;
  readonly results: readonly BenchResult[];
  readonly ratios: Readonly<Record<string, number>>;
}

export interface BenchOptions {
  readonly json: boolean;
  /** Ends within 60 s. */
  readonly quick: boolean;
}

export function benchOptions(): BenchOptions {
  const { values } = parseArgs({
    options: {
      json: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
    },
  });
  return { json: values.json, quick: values.quick };
}

/** Collects series by name, in the order they first appear. */
export class Recorder {
  readonly #series = new Map<string, Series>();

  add(name: string, unit: string, value: number): void {
    const series = this.#series.get(name) ?? { name, unit, values: [] };
    series.values.push(value);
    this.#series.set(name, series);
  }

  median(name: string): number {
    return median(this.#series.get(name)?.values ?? []);
  }

  results(): BenchResult[] {
    return [...this.#series.values()].map(({ name, unit, values }) => ({
      name,
      value: round(median(values)),
      unit,
      min: round(Math.min(...values)),
      max: round(Math.max(...values)),
    }));
  }
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** Nearest-rank percentile; NaN of nothing. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

function round(value: number): number {
  return Number(value.toPrecision(5));
}

/** Prints the table of medians with their range, or one JSON document. */
export function printReport(report: Omit<BenchReport, "machine">, options: BenchOptions): void {
  const machine = `${cpus().length} × ${cpus()[0]?.model.trim() ?? "unknown CPU"}, Node ${process.versions.node}`;
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ ...report, machine })}\n`);
    return;
  }
  const table = new Table({
    head: [`${report.bench}`, "median", "min", "max", "unit"],
    style: { head: [], border: [] },
  });
  for (const { name, value, min, max, unit } of report.results)
    table.push([name, value, min, max, unit]);
  process.stdout.write(`${machine}; ${report.rounds} rounds\n${table.toString()}\n`);
  for (const [name, ratio] of Object.entries(report.ratios))
    process.stdout.write(`ratio ${name}: ${ratio.toFixed(2)}\n`);
}
