import type { Finding } from "../backfill/doctor/finding.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Side } from "../config/words.ts";

const DATABASES = ["old", "new"] as const;

/**
 * A fix for every finding that has one, by the place it belongs to. One file for two databases: psql runs only the part
 * whose variable is set. What changes rows or tables is commented out, to be decided by a person.
 */
export function fixScript(plan: Plan, findings: readonly Finding[]): string {
  const of = (place: "plan" | Side) => findings.filter(({ fix }) => fix?.where === place);
  const lines = [
    `-- Fixes for ${plan.name}, drafted by crossfade check. Read every line before running any.`,
    "-- Nothing runs unless a database is named; what changes rows or tables is commented out:",
    '--   psql -v old=1 -f THIS_FILE "$OLD_DATABASE_URL"',
    '--   psql -v new=1 -f THIS_FILE "$NEW_DATABASE_URL"',
  ];
  if (of("plan").length > 0)
    lines.push("", "-- In the plan", ...of("plan").flatMap((finding) => fixLines(finding)));
  for (const side of DATABASES) {
    if (of(side).length === 0) continue;
    lines.push("", `-- On the ${side} database`, `\\if :{?${side}}`);
    lines.push(...of(side).flatMap((finding) => fixLines(finding)), "\\endif");
  }
  return `${lines.join("\n")}\n`;
}

function fixLines({ severity, path, what, example, fix }: Finding): string[] {
  if (fix === undefined) return [];
  const key = example === undefined ? [] : [`example: ${JSON.stringify(example.key)}`];
  const active = fix.where !== "plan" && !fix.destructive;
  return [
    "",
    ...comment([`${severity} ${path}`, what, ...key].join("\n")),
    ...(active ? fix.text.split("\n") : comment(fix.text)),
  ];
}

/** No line of a value may end the comment it stands in. */
function comment(text: string): string[] {
  return text.split(/[\r\n]+/).map((line) => `-- ${line}`);
}
