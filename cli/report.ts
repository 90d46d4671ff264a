import { writeFileSync } from "node:fs";
import { Option } from "commander";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import { renderHtml } from "../switchover/report/html.ts";
import { renderMarkdown } from "../switchover/report/markdown.ts";
import { readReport, type Report } from "../switchover/report/report.ts";
import type { Command } from "./command.ts";
import { withStatusInput } from "./status-input.ts";

const RENDER: Readonly<Record<Format, (report: Report) => string>> = {
  html: renderHtml,
  md: renderMarkdown,
  json: (report) => JSON.stringify(report, undefined, 2),
};

type Format = "html" | "md" | "json";

interface Options {
  readonly format: Format;
  readonly out?: string;
}

export const report: Command<Options> = {
  name: "report",
  summary: "writes the whole migration as one file",
  details: `Writes what was recorded: a verdict, phases, traffic and lag over time, what every table's last verify found, receipts, the
gates at each step, quarantine, the timeline, and the plan without its secrets. The same facts in every format; the HTML file loads nothing from anywhere. Without --out
it is printed.`,
  examples: [
    "crossfade report --out report.html",
    "crossfade report --format md",
    "crossfade report --json",
  ],
  options: [
    new Option("--format <format>", "html, md or json")
      .choices(["html", "md", "json"])
      .default("html"),
    new Option("--out <file>", "write it to this file"),
  ],
  logLevel: "warn",
  async run(context, { format, out }) {
    const found = await withStatusInput(context, readReport);
    const { ok, sentence } = found.verdict;
    if (out === undefined) return { json: found, text: RENDER[format](found).trimEnd() };
    try {
      writeFileSync(out, RENDER[format](found));
    } catch (error) {
      throw new CrossfadeError("USAGE", `${out} cannot be written: ${messageOf(error)}`, {
        hint: "Name another file with --out FILE.",
      });
    }
    return { json: found, text: `${ok ? "Good" : "Not good"}. ${sentence}\nWritten to ${out}` };
  },
};
