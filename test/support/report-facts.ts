import type { Page } from "playwright-core";
import type { Plan } from "../../config/plan-types.ts";
import { renderHtml } from "../../switchover/report/html.ts";
import { renderMarkdown } from "../../switchover/report/markdown.ts";
import { readReport, type Report } from "../../switchover/report/report.ts";
import { withStatusInput } from "../../cli/status-input.ts";
import type { Context } from "../../cli/command.ts";
import { silentLog } from "./control.ts";

/** Title of a section → its rows, cell by cell. */
export type Facts = Readonly<Record<string, readonly (readonly string[])[]>>;

export interface Reported {
  /** As `--format json` prints it. */
  readonly json: Report;
  readonly html: string;
  readonly md: string;
}

export async function reportOf(plan: Plan): Promise<Reported> {
  const context = { plan, log: silentLog } as unknown as Context;
  const report = await withStatusInput(context, readReport);
  return {
    json: JSON.parse(JSON.stringify(report)) as Report,
    html: renderHtml(report),
    md: renderMarkdown(report),
  };
}

/** What a browser shows of the HTML, without the bars. */
export async function htmlFacts(page: Page): Promise<Facts> {
  return page.evaluate<Facts>(`Object.fromEntries([...document.querySelectorAll("table")].map((table) => [
    [...document.querySelectorAll("h2")].findLast((title) => title.compareDocumentPosition(table) & Node.DOCUMENT_POSITION_FOLLOWING).textContent,
    [...table.querySelectorAll("tbody tr")].map((row) =>
      [...row.querySelectorAll("td")]
        .filter((cell) => cell.querySelector("meter") === null)
        .map((cell) => cell.textContent.replaceAll(/\\s+/g, " ").trim())),
  ]))`);
}

export function markdownFacts(md: string): Facts {
  const facts: Record<string, string[][]> = {};
  for (const part of md.split(/^## /m).slice(1)) {
    const [title = "", ...lines] = part.split("\n");
    const rows = lines.filter((line) => line.startsWith("| ")).slice(1);
    if (rows.length > 0) facts[title] = rows.map(cellsOf);
  }
  return facts;
}

function cellsOf(line: string): string[] {
  return line
    .slice(1, -1)
    .split(/(?<!\\)\|/)
    .map((cell) =>
      cell.trim().replaceAll(/\\(.)/g, "$1").replaceAll("&lt;", "<").replaceAll("&amp;", "&"),
    );
}
