import type { Chart } from "./charts.ts";
import { overTime } from "./over-time.ts";
import { describeSeconds } from "./seconds.ts";
import type { Report } from "./report.ts";

/** One table of the report, for every format that has tables. */
export interface Section {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** What stands there when there are no rows. */
  readonly empty: string;
  /** A bar for each row, 0–1, and what it measures. */
  readonly bars?: { readonly of: string; readonly shares: readonly number[] };
  /** What shows the rows better than a long table does: there the table is folded away. */
  readonly charts?: readonly Chart[];
}

/** When it was written, by what, and about which servers. */
export function origin({ generated_at: at, versions, status }: Report): string {
  const server = (version: string | null) =>
    version === null ? "does not answer" : `runs PostgreSQL ${version}`;
  return `Written ${at} by Crossfade ${versions.crossfade} on Node ${versions.node}. Old ${server(versions.old)}, new ${server(versions.new)}. Epoch ${status.epoch}.`;
}

/** The same facts in the same order for Markdown and HTML. */
export function sectionsOf(report: Report): Section[] {
  return [
    phases(report),
    overTime(report),
    counts(report),
    tables(report),
    receipts(report),
    passages(report),
    gates(report),
    quarantine(report),
    timeline(report),
  ];
}

function phases({ stays }: Report): Section {
  const longest = Math.max(...stays.map(({ seconds }) => seconds), 1);
  return {
    title: "Phases",
    columns: ["phase", "entered", "left", "stayed"],
    rows: stays.map(({ phase, from, to, seconds }) => [
      phase,
      from,
      to ?? "is there now",
      describeSeconds(seconds),
    ]),
    empty: "No phase was entered yet.",
    bars: { of: "time in the phase", shares: stays.map(({ seconds }) => seconds / longest) },
  };
}

function counts({ counts: found }: Report): Section {
  return {
    title: "Rows",
    columns: ["side", "table", "rows", "counted at"],
    rows: found.map(({ side, table, rows, at }) => [side, table, String(rows), at.toISOString()]),
    empty: "Nothing was counted yet: `crossfade verify` does, and so does the phase verify.",
  };
}

function tables({ tables: found, status }: Report): Section {
  const copied = new Map(status.backfill.tables.map(({ table, rows }) => [table, rows]));
  return {
    title: "Comparison of each table",
    columns: [
      "direction",
      "table",
      "rows copied",
      "rows it makes",
      "rows found",
      "rejected",
      "missing",
      "extra",
      "different",
      "verified at",
      "verify",
    ],
    rows: found.map((table) => [
      table.direction,
      table.rowless && !table.table.startsWith("check ")
        ? `${table.table} (foreign keys)`
        : table.table,
      table.direction === "forward" ? String(copied.get(table.table) ?? "") : "",
      table.rowless ? "" : String(table.rows),
      table.rowless ? "" : String(table.found),
      Object.entries(table.rejected)
        .map(([reason, keys]) => `${keys} × ${reason}`)
        .join("; ") || "none",
      String(table.missing),
      String(table.extra),
      String(table.different),
      table.at.toISOString(),
      table.state,
    ]),
    empty: "No table was compared yet.",
  };
}

function receipts({ receipts: found }: Report): Section {
  const longest = Math.max(...found.map((receipt) => receipt.hold_ms?.max ?? 0), 1);
  return {
    title: "Receipts of flips and drills",
    columns: [
      "at",
      "kind",
      "from",
      "to",
      "epoch",
      "ok",
      "writes held",
      "longest hold",
      "p99 of holds",
      "failed",
      "why",
    ],
    rows: found.map((receipt) => [
      receipt.at.toISOString(),
      receipt.kind,
      receipt.from,
      receipt.to,
      String(receipt.epoch),
      receipt.ok ? "yes" : "undone",
      count(receipt.writes_held),
      receipt.hold_ms === null ? "not measured" : `${Math.round(receipt.hold_ms.max)} ms`,
      receipt.hold_ms === null ? "not measured" : `${Math.round(receipt.hold_ms.p99)} ms`,
      count(receipt.failed),
      receipt.why ?? "",
    ]),
    empty: "No flip and no drill yet.",
    bars: {
      of: "longest hold",
      shares: found.map((receipt) => (receipt.hold_ms?.max ?? 0) / longest),
    },
  };
}

function gates({ status }: Report): Section {
  return {
    title: "Gates of the next phase",
    columns: ["gate", "state", "value", "limit", "why"],
    rows: status.gates.map(({ name, state, value, limit, why }) => [
      name,
      state,
      String(value ?? ""),
      String(limit ?? ""),
      why ?? "",
    ]),
    empty: "No phase follows.",
  };
}

function passages({ passages: found }: Report): Section {
  return {
    title: "Gates at each step",
    columns: ["at", "into", "by", "gate", "state", "value", "limit", "why"],
    rows: found.flatMap(({ at, to, by, gates: passed }) =>
      passed.map(({ name, state, value, limit, why }) => [
        at,
        to,
        by,
        name,
        state,
        String(value ?? ""),
        String(limit ?? ""),
        why ?? "",
      ]),
    ),
    empty: "No step was taken through gates yet.",
  };
}

function quarantine({ quarantine: keys }: Report): Section {
  return {
    title: "Quarantine",
    columns: ["direction", "mapping", "table", "key", "state", "reason", "since"],
    rows: keys.map((key) => [
      key.direction,
      key.mapping,
      key.source_table,
      key.key.join(", "),
      key.state,
      key.reason,
      key.at,
    ]),
    empty: "No key is in quarantine.",
  };
}

function timeline({ timeline: events }: Report): Section {
  return {
    title: "Timeline",
    columns: ["at", "what", "by", "phase", "epoch", "detail"],
    rows: events.map(({ at, kind, by, phase, epoch, detail }) => [
      at.toISOString(),
      kind,
      by,
      phase,
      String(epoch),
      // Gates and keys have tables of their own.
      JSON.stringify({ ...detail, gates: undefined, keys: undefined }),
    ]),
    empty: "Nothing was recorded yet.",
  };
}

function count(value: number | null): string {
  return value === null ? "not measured" : String(value);
}
