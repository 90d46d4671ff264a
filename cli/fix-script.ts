import type { Finding } from "../backfill/doctor/finding.ts";
import type { Plan } from "../config/plan-types.ts";

const PLACES = ["plan", "old", "new"] as const;
const TITLES: Readonly<Record<(typeof PLACES)[number], string>> = {
  plan: "In the plan",
  old: "On the old database",
  new: "On the new database",
};

/**
 * A fix for every finding that has one, by the place it belongs to. What changes or removes rows, or needs a decision, is
 * commented out, and so is all of the old side: a file has one database to be run on, and that is the new one.
 */
export function fixScript(plan: Plan, findings: readonly Finding[]): string {
  const lines = [
    `-- Fixes for ${plan.name}, drafted by crossfade check. Read every line before running any.`,
    "-- Statements that stand without a comment build indexes, statistics or extensions on the new database.",
    "-- Run them outside of a transaction: create index concurrently needs that.",
  ];
  for (const place of PLACES) {
    const own = findings.filter(({ fix }) => fix?.where === place);
    if (own.length === 0) continue;
    lines.push("", `-- ${TITLES[place]} ${"-".repeat(60)}`);
    for (const finding of own) lines.push("", ...fixLines(finding));
  }
  return `${lines.join("\n")}\n`;
}

function fixLines({ severity, path, what, example, fix }: Finding): string[] {
  if (fix === undefined) return [];
  const key = example === undefined ? [] : [`example: ${JSON.stringify(example.key)}`];
  const active = fix.where === "new" && !fix.destructive;
  return [
    ...comment([`${severity} ${path}`, what, ...key].join("\n")),
    ...(active ? fix.text.split("\n") : comment(fix.text)),
  ];
}

/** No line of a value may end the comment it stands in. */
function comment(text: string): string[] {
  return text.split(/[\r\n]+/).map((line) => `-- ${line}`);
}
