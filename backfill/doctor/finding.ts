import type { VerifyPlan } from "../../config/plan-types.ts";
import type { Side } from "../../config/words.ts";
import { messageOf } from "../../config/errors.ts";
import { sqlState } from "../../store/postgres/session.ts";
import { shownValue } from "../verify-examples.ts";

/** `unknown`: could not be tried; it is never taken for `ok`. */
export type Severity = "error" | "warning" | "unknown" | "ok";

/** One thing the doctor found. */
export interface Finding {
  readonly severity: Severity;
  /** The mapping in the plan, or the table or setting of a side. */
  readonly path: string;
  readonly what: string;
  readonly rows?: number;
  readonly example?: Example;
  readonly fix?: Fix;
}

export interface Example {
  /** The source row: its key by column. */
  readonly key: Readonly<Record<string, string | null>>;
  /** What the database said. */
  readonly message?: string;
  readonly columns?: Readonly<
    Record<string, { readonly expected: string | null; readonly found: string | null }>
  >;
}

/** SQL, or lines for the plan, that would put a finding right. */
export interface Fix {
  readonly where: Side | "plan";
  readonly text: string;
  /** Changes or removes rows: written as a comment, to be decided by a person. */
  readonly destructive: boolean;
}

/** The key of an example, redacted as the plan says. */
export function exampleKey(
  plan: VerifyPlan,
  table: string,
  columns: readonly { readonly name: string }[],
  values: readonly (string | null)[],
): Record<string, string | null> {
  return Object.fromEntries(
    columns.map(({ name }, i) => [name, shownValue(plan, table, name, values[i] ?? null)]),
  );
}

/** A database's message may quote values of the row: where the plan redacts any, only its SQLSTATE is shown. */
export function exampleMessage(plan: VerifyPlan, error: unknown): string {
  const state = sqlState(error);
  return plan.redact.length > 0 ? `SQLSTATE ${state ?? "unknown"} (redacted)` : messageOf(error);
}

/** `12,345 rows`, `1 row`. */
export function count(n: number, noun: string): string {
  return `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;
}

/** A few names of a list. */
export function shortList(names: readonly string[]): string {
  return names.length <= 3 ? names.join(", ") : `${names.slice(0, 3).join(", ")}, …`;
}

/** Rows of a mapping that nothing is known of. */
export const notTried = (path: string, rows: number): Finding => ({
  severity: "unknown",
  path,
  what: `${count(rows, "row")} not tried, because too many failed before; put these right and check again`,
  rows,
});
