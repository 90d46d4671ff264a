import { FIRST_OWN_OID } from "./server-types.ts";
import { aliasOf, type Driver, type Reader } from "./mapping.ts";
import { ident } from "./quote.ts";
import { sqlState } from "./session.ts";
import { run, runBatch } from "./statement.ts";
import type { SyncContext } from "./sync.ts";

/** bool, int8, int2, int4, date, timestamp, timestamptz, numeric, uuid: exact, and the same whatever locale or time zone says. */
const TYPES: ReadonlySet<number> = new Set([16, 20, 21, 23, 1082, 1114, 1184, 1700, 2950]);
/** Names of types that mean the same on every server. */
const KEY_TYPES =
  /^(int[248]|numeric|uuid|bool|text|varchar|bpchar|date|timestamp|timestamptz|bytea)$/;
/** What an expression may be made of, as Postgres calls it before and since 17. */
const NODES: ReadonlySet<string> = new Set([
  "OPEXPR",
  "FUNCEXPR",
  "CONST",
  "VAR",
  "RELABELTYPE",
  "DISTINCTEXPR",
  "NULLIFEXPR",
  "BOOLEXPR",
  "BOOLEANTEST",
  "NULLTEST",
  "COALESCE",
  "COALESCEEXPR",
  "MINMAX",
  "MINMAXEXPR",
  "CASE",
  "CASEEXPR",
  "WHEN",
  "CASEWHEN",
]);
/** An index has no more columns. */
const MOST_COLUMNS = 32;

/**
 * Whether the source computes these expressions over its row exactly as the target would. Expressions run on the target, which
 * is the judge of what they mean (DESIGN §2.1); so this says yes only where nothing is left to mean: both servers are of one major
 * version, and the expression consists of immutable functions of Postgres itself over types whose values are exact and know
 * no locale. The target's parser says what it consists of: it makes an index of it, on a table that is taken back at once.
 *
 * Call inside a transaction of the target session.
 */
export async function alikeOnBothServers(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  expressions: readonly string[],
): Promise<boolean> {
  if (expressions.length > MOST_COLUMNS) return false;
  if (!driver.key.every(({ typeName }) => KEY_TYPES.test(typeName))) return false;
  if ((await majorOf(context.source)) !== (await majorOf(context.target))) return false;
  const tree = await parsed(context, driver, reader, expressions);
  return tree !== undefined && isExact(tree) && (await areOwnAndImmutable(context, tree));
}

async function majorOf(client: SyncContext["source"]): Promise<number> {
  const [row] = await run(client, "select current_setting('server_version_num')");
  return Math.floor(Number(row?.[0]) / 10_000);
}

/** The expressions as the target understands them, as text; undefined: it would not compute them ahead of time. */
async function parsed(
  { target }: SyncContext,
  driver: Driver,
  reader: Reader,
  expressions: readonly string[],
): Promise<string | undefined> {
  // They call their row by the driving table's name.
  const table = `pg_temp.${aliasOf(driver)}`;
  const columns = reader.columns.map(({ name, type }) => `${ident(name)} ${type}`).join(", ");
  await run(target, "savepoint cf_alike");
  try {
    const answers = await runBatch(target, [
      `create temporary table ${aliasOf(driver)} (${columns})`,
      `create index cf_alike on ${table} (${expressions.map((sql) => `(${sql}\n)`).join(", ")})`,
      "select indexprs::text from pg_index where indexrelid = 'pg_temp.cf_alike'::regclass",
    ]);
    return answers.at(-1)?.[0]?.[0] ?? undefined;
  } catch (error) {
    // Volatile, a subquery, a type that has no order: errors of the statement, not of the session.
    if (!/^(0A|42)/.test(sqlState(error) ?? "")) throw error;
    return undefined;
  } finally {
    await run(target, "rollback to savepoint cf_alike");
  }
}

function isExact(tree: string): boolean {
  const nodes = [...tree.matchAll(/\{(\w+)/g)].map(([, name]) => name ?? "");
  const types = [
    ...tree.matchAll(
      /:(?:vartype|consttype|funcresulttype|opresulttype|resulttype|coalescetype|minmaxtype|casetype) (\d+)/g,
    ),
  ].map(([, oid]) => Number(oid));
  return nodes.every((node) => NODES.has(node)) && types.every((oid) => TYPES.has(oid));
}

async function areOwnAndImmutable({ target }: SyncContext, tree: string): Promise<boolean> {
  const functions = new Set(
    [...tree.matchAll(/:(?:funcid|opfuncid) (\d+)/g)].map(([, oid]) => Number(oid)),
  );
  const types = `'{${[...TYPES].join(",")}}'::oid[]`;
  const [row] = await run(
    target,
    `select count(*)::text from pg_proc where oid = any($1::oid[]) and oid < ${FIRST_OWN_OID} and provolatile = 'i' and not proretset
       and prorettype = any(${types}) and proargtypes::oid[] <@ ${types}`,
    [`{${[...functions].join(",")}}`],
  );
  return Number(row?.[0]) === functions.size;
}
