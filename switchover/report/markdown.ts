import { stringify } from "yaml";
import type { Report } from "./report.ts";
import { origin, type Section, sectionsOf } from "./sections.ts";

export function renderMarkdown(report: Report): string {
  return [
    `# Migration ${cell(report.plan)}`,
    `**${report.verdict.ok ? "Good" : "Not good"}.** ${cell(report.verdict.sentence)}`,
    cell(origin(report)),
    ...sectionsOf(report).map(table),
    `## Configuration, without secrets\n\n${indented(stringify(report.configuration))}`,
  ].join("\n\n");
}

function table({ title, columns, rows, empty }: Section): string {
  if (rows.length === 0) return `## ${title}\n\n${empty}`;
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(" | ")} |`;
  return [
    `## ${title}`,
    "",
    line(columns),
    `|${columns.map(() => "---|").join("")}`,
    ...rows.map(line),
  ].join("\n");
}

/** Values come from databases and people: none may end a cell or begin markup. */
function cell(text: string): string {
  return text
    .replaceAll(/\s+/g, " ")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(/[\\`*_[\]|]/g, "\\$&");
}

/** An indented block cannot be ended by anything in it. */
function indented(text: string): string {
  return text.trimEnd().replaceAll(/^/gm, "    ");
}
