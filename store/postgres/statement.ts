import { createHash } from "node:crypto";
import type pg from "pg";
import { literal } from "./quote.ts";

export type TextRow = readonly (string | null)[];

const names = new Map<string, string>();

/** The name under which a statement that comes back often is prepared: made of its text. */
export function statementName(text: string): string {
  let name = names.get(text);
  if (name === undefined) {
    name = `cf_${createHash("sha1").update(text).digest("hex")}`;
    names.set(text, name);
  }
  return name;
}

/**
 * Runs a statement that comes back often, prepared under its `statementName`. Rows are arrays of texts.
 * Parameters that are arrays are arrays of texts or nulls.
 */
export async function runPrepared(
  client: pg.ClientBase,
  text: string,
  values: readonly unknown[],
): Promise<TextRow[]> {
  const { rows } = await client.query({
    name: statementName(text),
    text,
    values: values as unknown[],
    rowMode: "array",
  });
  return rows as TextRow[];
}

/** Runs a statement once. */
export async function run(
  client: pg.ClientBase,
  text: string,
  values: readonly unknown[] = [],
): Promise<TextRow[]> {
  const { rows } = await client.query({ text, values: values as unknown[], rowMode: "array" });
  return rows as TextRow[];
}

/**
 * Several statements without parameters in one round trip. In READ COMMITTED each of them has a snapshot of its own.
 * Returns the rows of each.
 */
export async function runBatch(
  client: pg.ClientBase,
  statements: readonly string[],
): Promise<TextRow[][]> {
  const results = (await client.query({
    text: statements.join(";\n"),
    rowMode: "array",
  })) as unknown as { rows: TextRow[] } | { rows: TextRow[] }[];
  return (Array.isArray(results) ? results : [results]).map((result) => result.rows);
}

const inBatches = new WeakMap<pg.ClientBase, Map<string, string>>();

/** A statement for `runBatch` with parameters that are texts or arrays of texts or nulls; planned once per session and text. */
export async function batchStatement(
  client: pg.ClientBase,
  text: string,
  values: readonly (string | readonly (string | null)[])[],
): Promise<string> {
  const name = await prepareForBatch(client, text);
  if (values.length === 0) return `execute ${name}`;
  const parameters = values.map((value) =>
    literal(typeof value === "string" ? value : arrayLiteral(value)),
  );
  return `execute ${name}(${parameters.join(", ")})`;
}

/** Values that need no escaping are most of a backlog: looking is quicker than replacing nothing. */
function arrayLiteral(values: readonly (string | null)[]): string {
  let items = "";
  for (const value of values) {
    if (items !== "") items += ",";
    if (value === null) items += "NULL";
    else if (value.includes("\\") || value.includes('"'))
      items += `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
    else items += `"${value}"`;
  }
  return `{${items}}`;
}

/**
 * Prepares a statement for `runBatch`, whose statements are otherwise planned each time; once per session and text. Returns
 * the name to `execute`. `types` are those of its parameters.
 */
export async function prepareForBatch(
  client: pg.ClientBase,
  text: string,
  types: readonly string[] = [],
): Promise<string> {
  const known = inBatches.get(client) ?? new Map<string, string>();
  inBatches.set(client, known);
  let name = known.get(text);
  if (name === undefined) {
    name = `cf_batch_${known.size}`;
    await client.query(
      `prepare ${name}${types.length === 0 ? "" : `(${types.join(", ")})`} as ${text}`,
    );
    known.set(text, name);
  }
  return name;
}
