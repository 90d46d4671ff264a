import type pg from "pg";
import { ident } from "./quote.ts";
import { inTransaction } from "./session.ts";
import { run } from "./statement.ts";

/** Rows looked at of what a check returns. */
export const CHECK_ROWS = 1_000;

/** Runs SQL of the plan read-only with a schema as search path; returns its first rows, each as one text, in order. */
export async function runUserCheck(
  client: pg.Client,
  schema: string,
  sql: string,
): Promise<string[]> {
  return inTransaction(client, async () => {
    await run(client, "set transaction read only");
    await run(client, `set local search_path = ${ident(schema)}, pg_temp`);
    // The newline ends a comment that the SQL may end with.
    const rows = await run(
      client,
      `select to_jsonb(cf_c)::text from (${sql.replace(/;\s*$/, "")}\n) cf_c limit ${CHECK_ROWS}`,
    );
    return rows.map(([row]) => row ?? "").toSorted();
  });
}
