import type { Status } from "./status.ts";
import { describeGate } from "./gates.ts";

/** A page that shows the status and looks again every two seconds. Reads only; commands go through the CLI or the API. */
export function renderConsole(status: Status): string {
  const rows: [string, string][] = [
    ["phase", `${status.phase}${status.canary_step > 0 ? ` (step ${status.canary_step})` : ""}`],
    ["authority", `${status.authority}, epoch ${status.epoch}`],
    ["reads", `${Math.round(status.reads.new * 1000) / 10} % answered by new`],
    ["mirror", mirrorText(status)],
    ["backfill", backfillText(status)],
    [
      "verify",
      `${status.verify.state}: ${status.verify.missing} missing, ${status.verify.extra} extra, ${status.verify.different} different`,
    ],
    ["quarantine", `${status.quarantine} keys`],
    ["gates", status.gates.map(describeGate).join("\n") || "–"],
    [
      "sidecars",
      status.sidecars
        .map(
          (each) =>
            `${each.id}: epoch ${each.epoch}, seen ${each.seen_ms} ms ago${each.holding ? ", holding" : ""}`,
        )
        .join("\n") || "none",
    ],
    [
      "last flip",
      status.flip === null
        ? "–"
        : `${status.flip.kind} ${status.flip.from} → ${status.flip.to}: ${status.flip.ok ? "done" : `undone, ${status.flip.why}`}`,
    ],
    ["problems", status.problems.join("\n") || "–"],
  ];
  const table = rows
    .map(([name, value]) => `<tr><th>${escape(name)}</th><td>${escape(value)}</td></tr>`)
    .join("\n");
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>Crossfade: ${escape(status.plan)}</title>
<style>body{font:15px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}
th{text-align:left;vertical-align:top;padding-right:2rem}td{white-space:pre-wrap}</style></head>
<body><h1>${escape(status.plan)}</h1><table>${table}</table></body></html>`;
}

function mirrorText({ mirror }: Status): string {
  const lag = mirror.lag_ms === null ? "lag unknown" : `${mirror.lag_ms} ms behind`;
  return `${mirror.direction}, ${mirror.state}, ${lag}, ${mirror.keys} keys${mirror.why === null ? "" : `\n${mirror.why}`}`;
}

function backfillText({ backfill }: Status): string {
  const tables = backfill.tables.map(
    (table) => `${table.table}: ${table.done} of ${table.chunks} chunks, ${table.rows} rows`,
  );
  return [backfill.state, ...tables].join("\n");
}

function escape(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
