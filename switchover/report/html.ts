import { stringify } from "yaml";
import { type Chart, drawChart } from "./charts.ts";
import type { Report } from "./report.ts";
import { origin, type Section, sectionsOf } from "./sections.ts";

const STYLE = `
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); --bar: #3b7dd8; --old: #2a78d6; --new: #c2570c; }
@media (prefers-color-scheme: dark) { :root { --old: #6aa9ee; --new: #f09a4b; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { border-left: .4rem solid; padding: .5rem 1rem; } .ok { border-color: #1a7f5a; } .not-ok { border-color: #c2410c; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
td:first-child { white-space: nowrap; } td:last-child { overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; font-size: .85rem; } figcaption i { font-weight: 400; margin-left: .8rem; }
svg { display: block; width: 100%; } svg text { font: 10px system-ui, sans-serif; fill: currentColor; opacity: .75; }
.grid, .mark { stroke: var(--line); fill: none; } .mark { stroke-dasharray: 2 3; }
.line { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
b.old { color: var(--old); } b.new { color: var(--new); } .line.old { stroke: var(--old); } .line.new { stroke: var(--new); stroke-dasharray: 6 4; } summary { margin: .8rem 0; cursor: pointer; }
th { white-space: nowrap; } meter { width: 8rem; accent-color: var(--bar); } pre { overflow-x: auto; font-size: .8rem; }`;

/** One file with nothing to load: no script, no font, no image. */
export function renderHtml(report: Report): string {
  const { verdict } = report;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Migration ${text(report.plan)}</title><style>${STYLE}</style></head><body>
<h1>Migration ${text(report.plan)}</h1>
<p class="verdict ${verdict.ok ? "ok" : "not-ok"}"><strong>${verdict.ok ? "Good." : "Not good."}</strong> ${text(verdict.sentence)}</p>
<p>${text(origin(report))}</p>
${sectionsOf(report)
  .map((part) => section(part, report))
  .join("\n")}
<h2>Configuration, without secrets</h2><pre>${text(stringify(report.configuration))}</pre>
</body></html>
`;
}

function section(
  { title, columns, rows, empty, bars, charts }: Section,
  { series, stays }: Report,
): string {
  if (rows.length === 0) return `<h2>${text(title)}</h2><p>${text(empty)}</p>`;
  const heads = [...columns, ...(bars === undefined ? [] : [bars.of])];
  const body = rows.map((cells, i) => {
    const bar = bars === undefined ? "" : `<td>${meter(bars.shares[i] ?? 0)}</td>`;
    return `<tr>${cells.map((cell) => `<td>${text(cell)}</td>`).join("")}${bar}</tr>`;
  });
  const table = `<div class="wide"><table><thead><tr>${heads.map((head) => `<th scope="col">${text(head)}</th>`).join("")}</tr></thead>
<tbody>${body.join("\n")}</tbody></table></div>`;
  if (charts === undefined) return `<h2>${text(title)}</h2>${table}`;
  const drawn = charts.map((chart) => figure(chart, drawChart(chart, series.at, stays)));
  return `<h2>${text(title)}</h2><div class="charts">${drawn.join("\n")}</div>
<details><summary>The ${rows.length} moments that these charts draw</summary>${table}</details>`;
}

function figure({ title, unit, lines }: Chart, svg: string): string {
  const legend = lines
    .filter(({ look }) => look !== "plain")
    .map(
      ({ name, look }) =>
        `<i><b class="${look}">${look === "new" ? "┅" : "━"}</b> ${text(name)}</i>`,
    );
  return `<figure><figcaption>${text(title)} (${text(unit)})${legend.join("")}</figcaption>${svg}</figure>`;
}

function meter(share: number): string {
  return `<meter min="0" max="1" value="${share.toFixed(3)}">${Math.round(share * 100)} %</meter>`;
}

function text(value: string): string {
  return value
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
