import type pg from "pg";
import { literal } from "./quote.ts";
import { sqlState } from "./session.ts";

/**
 * A session that writes down what would be executed instead of executing it, so that `--dry-run` shows the statements of the
 * very code that runs otherwise. What only reads is answered by the server, in a session that may do nothing else; what
 * is not there yet holds nothing.
 */

/** 25006: would write; 25P02 and the others: it reads what an earlier, recorded statement would have made. */
const WRITES = "25006";
const MISSING: ReadonlySet<string> = new Set(["3F000", "42P01", "42883", "42704"]);
/** Functions that a read-only session may call, although they do something. */
const ACTS =
  /\b(?:pg_(?:create|drop|terminate|cancel|logical|replication|advisory|notify|copy|switch|try)\w*|setval|nextval)\s*\(/i;
/** The frame around statements: says nothing of what is done. */
const FRAME = /^\s*(?:begin|commit|rollback|savepoint|set(?: local)? )/i;
/** A loop that waits for what is not executed would go on for ever: it has said all by then. */
const OFTEN = 5;

/** Ends a rehearsal that repeats itself. */
class RehearsalOver extends Error {}

/** Runs `work` with such a session and returns the statements, each once, in their order. `client` is used for nothing else. */
export async function rehearse(
  client: pg.Client,
  work: (client: pg.Client) => Promise<unknown>,
): Promise<string[]> {
  await client.query("set default_transaction_read_only = on");
  const said = new Map<string, number>();
  const record = (sql: string) => {
    if (FRAME.test(sql) && !sql.includes(";")) return;
    const times = (said.get(sql) ?? 0) + 1;
    said.set(sql, times);
    if (times > OFTEN) throw new RehearsalOver("it repeats itself");
  };
  const query = async (asked: string | pg.QueryConfig, values?: unknown[]): Promise<unknown> => {
    const text = typeof asked === "string" ? asked : asked.text;
    const nothing = { rows: [], rowCount: 0 };
    if (!/^\s*(?:select|with)\b/i.test(text) || ACTS.test(text)) {
      record(shown(text, values ?? (typeof asked === "string" ? [] : (asked.values ?? []))));
      return nothing;
    }
    try {
      return await client.query(asked, values);
    } catch (error) {
      const state = sqlState(error) ?? "";
      if (state === WRITES) record(shown(text, values ?? []));
      else if (!MISSING.has(state)) throw error;
      return nothing;
    }
  };
  const rehearsing = new Proxy(client, {
    get: (target, name) =>
      name === "query" ? query : (Reflect.get(target, name, target) as unknown),
  });
  try {
    await work(rehearsing);
  } catch (error) {
    if (!(error instanceof RehearsalOver)) throw error;
  }
  return [...said.keys()];
}

/** With its parameters in place and without the indentation of its source. */
function shown(text: string, values: readonly unknown[]): string {
  const filled = text.replaceAll(/\$(\d+)/g, (name, n: string) => {
    const index = Number(n) - 1;
    if (index >= values.length) return name;
    const value = values[index];
    if (value === null || value === undefined) return "null";
    if (Array.isArray(value)) return literal(`{${value.join(",")}}`);
    return typeof value === "string" ? literal(value) : JSON.stringify(value);
  });
  return filled.replaceAll(/\n\s+/g, "\n  ").trim();
}
