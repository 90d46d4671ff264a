import type { VerifyPlan } from "../config/plan-types.ts";
import type { VerifyExample } from "../store/control/verify-runs.ts";
import { type Difference, differenceName, explainDifferences } from "../store/postgres/compare.ts";
import type { Driver } from "../store/postgres/mapping.ts";
import type { SyncContext } from "../store/postgres/sync.ts";

/** Enough to recognise a value; a document is not stored twice. */
const VALUE_CHARACTERS = 200;
const REDACTED = "(redacted)";

/** The first differences as examples: the key, and of rows that differ the columns with what is expected and found. */
export async function verifyExamples(
  context: SyncContext,
  driver: Driver,
  differences: readonly Difference[],
  plan: VerifyPlan,
): Promise<VerifyExample[]> {
  const shown = differences.slice(0, plan.examples);
  if (shown.length === 0) return [];
  const explained = await explainDifferences(context, driver, shown);
  const targets = new Map(
    driver.readers.flatMap((reader) =>
      reader.mappings.map((mapping) => [mapping.path, mapping.target.name] as const),
    ),
  );
  return shown.map((difference) => {
    const key = driver.key.map(({ name }, i) => [
      name,
      shownValue(plan, driver.name, name, difference.key[i] ?? null),
    ]);
    const table = targets.get(difference.mapping) ?? "";
    const columns = (explained.get(differenceName(difference)) ?? []).map(
      ({ column, expected, found }) => [
        column,
        {
          expected: shownValue(plan, table, column, expected),
          found: shownValue(plan, table, column, found),
        },
      ],
    );
    return {
      kind: difference.kind,
      key: { mapping: difference.mapping, ...(Object.fromEntries(key) as Record<string, string>) },
      ...(columns.length === 0
        ? {}
        : { columns: Object.fromEntries(columns) as NonNullable<VerifyExample["columns"]> }),
    };
  });
}

/** A value as an example may show it: redacted as the plan says, and short. */
export function shownValue(
  { redact }: Pick<VerifyPlan, "redact">,
  table: string,
  column: string,
  value: string | null,
): string | null {
  if (value === null) return null;
  if ([column, `${table}.${column}`, "*"].some((name) => redact.includes(name))) return REDACTED;
  return value.length <= VALUE_CHARACTERS ? value : `${value.slice(0, VALUE_CHARACTERS)}…`;
}
