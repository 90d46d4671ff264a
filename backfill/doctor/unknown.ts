import { messageOf } from "../../config/errors.ts";
import { sqlState } from "../../store/postgres/session.ts";
import type { Finding } from "./finding.ts";

/** Whatever else the database refuses (a time-out, a missing privilege, a function that writes) leaves the question open. */
export async function unlessUnknown<T>(
  findings: Finding[],
  paths: readonly string[],
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    const state = sqlState(error);
    if (state === undefined || state.startsWith("57P")) throw error;
    for (const path of paths)
      findings.push({
        severity: "unknown",
        path,
        what: `could not be tried: ${reasonOf(state, error)}`,
      });
    return undefined;
  }
}

function reasonOf(state: string, error: unknown): string {
  if (state === "57014") return "it took longer than a statement of check may";
  if (state === "25006") return `it writes, and check changes nothing (${messageOf(error)})`;
  return messageOf(error);
}
