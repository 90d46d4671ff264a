import { z } from "zod";
import { PlanError } from "../../config/errors.ts";
import { section } from "../../config/fields.ts";
import { planIssues } from "../../config/plan-issues.ts";
import { readYaml } from "../../config/read-yaml.ts";
import { PHASES } from "../../config/words.ts";
import { type Cell, cellName, type Ratios, ratiosOf, WORKLOADS } from "./report.ts";

const positive = () =>
  z.number({ error: "expected a number above 0, such as 1.5" }).positive({
    error: "expected a number above 0, such as 1.5",
  });

/** What of a cell each limit looks at, and in which mode it says something. */
const LIMITS = {
  throughput_ratio: { mode: "saturation", of: (ratios: Ratios) => ratios.throughput, least: true },
  p50_ratio: { mode: "rate", of: (ratios: Ratios) => ratios.p50, least: false },
  p90_ratio: { mode: "rate", of: (ratios: Ratios) => ratios.p90, least: false },
  p99_ratio: { mode: "rate", of: (ratios: Ratios) => ratios.p99, least: false },
  p999_ratio: { mode: "rate", of: (ratios: Ratios) => ratios.p999, least: false },
} as const;
type RatioLimit = keyof typeof LIMITS;
const RATIO_LIMITS = Object.keys(LIMITS) as RatioLimit[];

const ratioLimit = (text: string) => positive().optional().describe(text);

const ruleSchema = section({
  phase: z.enum(PHASES).optional().describe("Only in this phase."),
  workload: z
    .enum([...WORKLOADS, "request"])
    .optional()
    .describe("Only for this workload."),
  throughput_ratio: ratioLimit("Least requests/s of direct's, at saturation."),
  p50_ratio: ratioLimit("Largest factor over direct's p50, at the fixed rate."),
  p90_ratio: ratioLimit("Largest factor over direct's p90, at the fixed rate."),
  p99_ratio: ratioLimit("Largest factor over direct's p99, at the fixed rate."),
  p999_ratio: ratioLimit("Largest factor over direct's p99.9, at the fixed rate."),
  errors: z
    .int({ error: "expected a whole number from 0 on" })
    .min(0, { error: "expected a whole number from 0 on" })
    .optional()
    .describe("Most errors in either mode, direct and through the sidecar together."),
}).refine(
  (rule) => rule.errors !== undefined || RATIO_LIMITS.some((name) => rule[name] !== undefined),
  { error: `found no limit, expected at least one of ${RATIO_LIMITS.join(", ")}, errors` },
);

export const budgetSchema = section({
  limits: z
    .array(ruleSchema)
    .min(1, { error: "found an empty list, expected at least one rule" })
    .describe("Every rule holds for every cell it names."),
});

export type Budget = z.output<typeof budgetSchema>;

export interface BrokenLimit {
  /** Where it stands in the budget file, such as `limits[0].p99_ratio`. */
  readonly path: string;
  /** What was measured where; null: the rule names something that was not measured. */
  readonly cell: string | null;
  readonly limit: number;
  readonly found: number | null;
}

export interface BudgetVerdict {
  readonly ok: boolean;
  /** Comparisons made. */
  readonly compared: number;
  readonly broken: readonly BrokenLimit[];
}

/** Reads a budget file, YAML or JSON. Throws a PlanError with every problem it finds. */
export function loadBudget(file: string): Budget {
  try {
    const data = readYaml(file);
    const parsed = budgetSchema.safeParse(data);
    if (parsed.success) return parsed.data;
    throw new PlanError(file, planIssues(parsed.error.issues, data));
  } catch (error) {
    if (!(error instanceof PlanError)) throw error;
    throw new PlanError(
      file,
      error.issues.map(({ path, message }) => ({ path: path === "" ? "(budget)" : path, message })),
      "docs/loadtest.md describes the file.",
    );
  }
}

/** Compares what was measured with every rule. What a rule asks for and nobody measured is broken: no data is no success. */
export function judgeBudget(budget: Budget, cells: readonly Cell[]): BudgetVerdict {
  const broken: BrokenLimit[] = [];
  let compared = 0;
  const look = (path: string, limit: number, measured: readonly Measured[], least: boolean) => {
    if (measured.length === 0) broken.push({ path, cell: null, limit, found: null });
    for (const { cell, found } of measured) {
      compared += 1;
      if (found === null || (least ? found < limit : found > limit))
        broken.push({ path, cell: cellName(cell), limit, found });
    }
  };
  for (const [index, rule] of budget.limits.entries()) {
    const meant = cells.filter(
      ({ phase, workload }) =>
        (rule.phase === undefined || rule.phase === phase) &&
        (rule.workload === undefined || rule.workload === workload),
    );
    for (const name of RATIO_LIMITS) {
      const limit = rule[name];
      if (limit === undefined) continue;
      const { mode, of, least } = LIMITS[name];
      const measured = meant
        .filter((cell) => cell.mode === mode)
        .map((cell) => ({ cell, found: of(ratiosOf(cell)) }));
      look(`limits[${index}].${name}`, limit, measured, least);
    }
    if (rule.errors !== undefined)
      look(`limits[${index}].errors`, rule.errors, meant.map(errorsOf), false);
  }
  return { ok: broken.length === 0, compared, broken };
}

interface Measured {
  readonly cell: Cell;
  /** null: the cell has no such figure. */
  readonly found: number | null;
}

/** A way that answered nothing has no number of errors that could pass. */
function errorsOf(cell: Cell): Measured {
  const ways = [cell.direct, ...(cell.through === null ? [] : [cell.through])];
  const silent = ways.some(({ requests }) => requests === 0);
  return { cell, found: silent ? null : ways.reduce((sum, { errors }) => sum + errors, 0) };
}

/** `limits[0].p99_ratio: found 2.31 in canary, read, at a fixed rate, expected at most 1.5` */
export function brokenText({ path, cell, limit, found }: BrokenLimit): string {
  const expected = `expected ${path.endsWith("throughput_ratio") ? "at least" : "at most"} ${limit}`;
  if (cell === null) return `${path}: nothing it names was measured, ${expected}`;
  const what = found === null ? "no figure" : Number(found.toPrecision(4));
  return `${path}: found ${what} in ${cell}, ${expected}`;
}
