import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { brokenText } from "./budget.ts";
import { cellName, COLUMNS, type Figures, type LoadReport, tableRows } from "./report.ts";

/** One chart: the same percentiles of each way. */
interface Chart {
  readonly title: string;
  /** 1 / (1 − share): on a logarithmic axis every further nine of a percentile takes the same width. */
  readonly x: readonly number[];
  readonly series: readonly { readonly name: string; readonly ms: readonly (number | null)[] }[];
}

/** The report as one HTML file that loads nothing: charts, styles and data stand in it. */
export function renderPage(report: LoadReport): string {
  const charts = chartsOf(report);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Crossfade load test</title>
<style>${asset("uPlot.min.css")}${STYLE}</style>
</head>
<body>
<main>
<h1>Crossfade load test</h1>
<p>${escape(what(report))}</p>
${budgetSection(report)}
<h2>How to read it</h2>
<ul>${explanations(report)
    .map((text) => `<li>${escape(text)}</li>`)
    .join("")}</ul>
<h2>Latency distribution</h2>
<p>At the fixed rate. Each line is one way to the service; where the lines part, the sidecar shows. The axis gives every further nine the same width.</p>
<div id="charts">${charts
    .map(
      ({ title }, index) =>
        `<figure><figcaption>${escape(title)}</figcaption><div class="chart" id="chart-${index}" role="img" aria-label="${escape(`${title}: latency by percentile; the figures are in the table below`)}"></div></figure>`,
    )
    .join("")}</div>
<h2>All figures</h2>
<div class="scroll">${table(COLUMNS, tableRows(report.cells))}</div>
${flipsSection(report)}
</main>
<script type="application/json" id="data">${embed(charts)}</script>
<script>${asset("uPlot.iife.min.js")}</script>
<script>${DRAW}</script>
</body>
</html>
`;
}

function chartsOf({ cells, flips }: LoadReport): Chart[] {
  const line = (name: string, { curve }: Figures) => ({
    name,
    ms: curve.map(([, ms]) => (Number.isFinite(ms) ? ms : null)),
  });
  const chart = (title: string, like: Figures, series: Chart["series"]): Chart => ({
    title,
    x: like.curve.map(([share]) => 1 / (1 - share)),
    series,
  });
  return [
    ...cells
      .filter(({ mode }) => mode === "rate")
      .map((cell) =>
        chart(cellName(cell), cell.direct, [
          line("direct", cell.direct),
          ...(cell.through === null ? [] : [line("sidecar", cell.through)]),
        ]),
      ),
    ...(flips === null
      ? []
      : [chart("mixed, while it flips", flips.figures, [line("sidecar", flips.figures)])]),
  ];
}

function what({ target, machine, started_at, rounds, seconds, rate, connections }: LoadReport) {
  const service = target === null ? "the ColonyCraft example" : target;
  return `${service}, ${started_at}. ${machine}. ${rounds} rounds of ${seconds} s, ${connections} connections, fixed rate ${rate} requests/s.`;
}

/** What the numbers are, and what they are not. */
function explanations({ target }: LoadReport): string[] {
  return [
    "direct goes straight at the app, sidecar is the same load through Crossfade. They alternate, so the ratios hold even where the machine does something else besides; single numbers only hold for this machine.",
    ...(target === null
      ? [
          "direct is the app of the side that has the authority; for the workload read, of the side that answers reads in that phase.",
        ]
      : []),
    "rate: each connection sends its share of a second's requests one after the other, then waits for the next second. A request's time runs from when it was sent to when it was answered: a request that could not be sent because the one before it was slow is not in the percentiles (coordinated omission). It shows as fewer requests/s than the fixed rate; no made-up values are added.",
    "saturation: each connection sends its next request as soon as it has its answer. Its req/s are the throughput; its latency says how long the queue is, and is not a fair latency of the service.",
    "errors: answers that are not 2xx, connections that broke, time-outs, and requests whose connection was closed without an answer.",
    "The load generator runs on the same machine and takes its part of the processor: on few cores both ways are slower than they could be.",
  ];
}

function budgetSection({ budget }: LoadReport): string {
  if (budget === null) return "";
  const items = budget.broken.map((limit) => `<li>${escape(brokenText(limit))}</li>`).join("");
  return `<h2>Budget: ${budget.ok ? "kept" : "broken"}</h2><p>${budget.compared} comparisons, ${budget.broken.length} broken.</p>${items === "" ? "" : `<ul>${items}</ul>`}`;
}

function flipsSection({ flips, checked }: LoadReport): string {
  const parts: string[] = [];
  if (flips !== null) {
    const rows = flips.receipts.map(({ kind, from, to, ok, epoch, writes_held, hold_ms, failed }) =>
      [
        kind,
        `${from} → ${to}`,
        ok ? "done" : "undone",
        epoch,
        writes_held ?? "–",
        hold_ms?.max.toFixed(1) ?? "–",
        failed ?? "–",
      ].map(String),
    );
    parts.push(
      "<h2>Flips under load</h2>",
      `<p>${flips.figures.requests} requests meanwhile, ${flips.figures.errors} errors, slowest ${flips.figures.max_ms.toFixed(1)} ms.</p>`,
      table(
        ["kind", "direction", "end", "epoch", "writes held", "longest hold ms", "failed"],
        rows,
      ),
    );
  }
  if (checked !== null)
    parts.push(
      `<p>Between the measurements every answer was compared with what its client had written: ${checked.failed} failed, ${checked.stale} stale.</p>`,
    );
  return parts.join("\n");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (tag: "th" | "td", row: readonly string[]) =>
    `<tr>${row.map((cell) => `<${tag}${tag === "th" ? ' scope="col"' : ""}>${escape(cell)}</${tag}>`).join("")}</tr>`;
  return `<table><thead>${cells("th", head)}</thead><tbody>${rows.map((row) => cells("td", row)).join("")}</tbody></table>`;
}

/** uPlot's own files, as they are published. */
function asset(name: string): string {
  const dist = createRequire(import.meta.url).resolve(`uplot/dist/${name}`);
  return readFileSync(dist, "utf8").replaceAll(/<\/(?=script|style)/gi, "<\\/");
}

/** JSON inside a script element: nothing in it may end the element. */
function embed(data: unknown): string {
  return JSON.stringify(data).replaceAll("<", "\\u003c");
}

function escape(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

const STYLE = `
:root { color-scheme: light; font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff }
main { max-width: 1100px; margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2rem }
#charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 1.5rem }
figure { margin: 0 } figcaption { font-weight: 600 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #dde2ea; white-space: nowrap }
th:nth-child(-n+4), td:nth-child(-n+4) { text-align: left }`;

const DRAW = `
const charts = JSON.parse(document.getElementById("data").textContent);
const COLORS = { direct: "#3b6fb6", sidecar: "#d1495b" };
const SPLITS = [2, 10, 100, 1000, 10000];
charts.forEach((chart, index) => {
  const element = document.getElementById("chart-" + index);
  const options = {
    width: element.clientWidth, height: 260,
    scales: { x: { time: false, distr: 3, log: 10 }, y: { range: (u, min, max) => [0, max === null ? 1 : max * 1.1] } },
    axes: [
      { splits: () => SPLITS, filter: (u, splits) => splits,
        values: (u, splits) => splits.map((x) => Number((100 * (1 - 1 / x)).toFixed(3)) + " %") },
      { label: "ms" },
    ],
    series: [
      { label: "percentile", value: (u, x) => x == null ? "–" : Number((100 * (1 - 1 / x)).toFixed(3)) + " %" },
      ...chart.series.map(({ name }) => ({ label: name, stroke: COLORS[name], width: 2, value: (u, ms) => ms == null ? "–" : ms.toFixed(2) + " ms" })),
    ],
  };
  const plot = new uPlot(options, [chart.x, ...chart.series.map(({ ms }) => ms)], element);
  new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: 260 })).observe(element);
});`;
