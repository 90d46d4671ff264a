import type pg from "pg";
import type { DeferredObject } from "../control/deferred-objects.ts";
import { withShortLock } from "./install-feed.ts";
import { ident, literal, relation } from "./quote.ts";
import { sqlState } from "./session.ts";
import { run } from "./statement.ts";

/**
 * Dropping an index or a foreign key for the time of the copy, and making it again. Every step looks first and can be repeated; the
 * caller holds the lock that lets only one session do any of it.
 */

const PATIENCE_MS = 60_000;

/** Drops it if it is there. Waits for the table in short tries, so that nobody waits behind it. */
export async function dropObject(client: pg.Client, object: DeferredObject): Promise<void> {
  await withShortLock(client, [dropSql(object)], { deadline: Date.now() + PATIENCE_MS });
}

export function dropSql(object: DeferredObject): string {
  return object.kind === "index"
    ? `drop index if exists ${relation(object.schema, object.name)}`
    : `alter table ${tableOf(object)} drop constraint if exists ${ident(object.name)}`;
}

/** What makes it again, in order. */
export function buildSql(object: DeferredObject): string[] {
  if (object.kind === "index")
    return [object.definition.replace(/^CREATE INDEX /, "CREATE INDEX CONCURRENTLY ")];
  const add = `alter table ${tableOf(object)} add constraint ${ident(object.name)} ${object.definition} not valid`;
  return object.validated ? [add, validateSql(object)] : [add];
}

function validateSql(object: DeferredObject): string {
  return `alter table ${tableOf(object)} validate constraint ${ident(object.name)}`;
}

function tableOf({ schema, table }: DeferredObject): string {
  return relation(schema, table);
}

/** `gone`: its table is not there any more, so nobody misses it. */
export type Built = "built" | "gone" | { readonly unproven: string };

/**
 * Makes an object that is missing, and finishes one that is half made. What is there by its name and valid stays, also with another
 * definition: then a person made it. Throws what Postgres says if it cannot be made.
 */
export async function buildObject(client: pg.Client, object: DeferredObject): Promise<Built> {
  const [table] = await run(client, "select to_regclass($1)::text", [tableOf(object)]);
  if (table?.[0] == null) return "gone";
  return object.kind === "index" ? buildIndex(client, object) : buildForeignKey(client, object);
}

async function buildIndex(client: pg.Client, object: DeferredObject): Promise<Built> {
  // What is not valid was left by a CREATE INDEX CONCURRENTLY that was killed.
  if ((await indexState(client, object)) === "invalid") await dropInvalid(client, object);
  if ((await indexState(client, object)) === "missing") {
    // No definition names the tablespace.
    await client.query(`set default_tablespace = ${literal(object.tablespace)}`);
    await createIndex(client, object);
  }
  await comment(client, object, `index ${relation(object.schema, object.name)}`);
  return "built";
}

/** One that fails leaves nothing of itself, so that a person may make another by its name. */
async function createIndex(client: pg.Client, object: DeferredObject): Promise<void> {
  try {
    for (const statement of buildSql(object)) await client.query(statement);
  } catch (error) {
    // Cancelled, or the session is over: the next one finds it.
    const code = sqlState(error);
    if (code !== undefined && !code.startsWith("57"))
      await dropInvalid(client, object).catch(() => {});
    throw error;
  }
}

async function indexState(
  client: pg.Client,
  object: DeferredObject,
): Promise<"missing" | "invalid" | "valid"> {
  const [row] = await run(
    client,
    "select (indisvalid and indisready and indislive)::text from pg_index where indexrelid = to_regclass($1) and indrelid = $2::regclass",
    [relation(object.schema, object.name), tableOf(object)],
  );
  return row === undefined ? "missing" : row[0] === "true" ? "valid" : "invalid";
}

/** Somebody else may be building one by this name: their lock on the table is waited for, and what is valid then stays. */
async function dropInvalid(client: pg.Client, object: DeferredObject): Promise<void> {
  const name = relation(object.schema, object.name);
  const statements = [
    `lock table ${tableOf(object)} in share update exclusive mode`,
    `do $do$ begin
       if exists (select from pg_index where indexrelid = to_regclass(${literal(name)}) and not (indisvalid and indisready and indislive)) then
         execute ${literal(dropSql(object))};
       end if;
     end $do$`,
  ];
  await withShortLock(client, statements, { deadline: Date.now() + PATIENCE_MS });
}

async function buildForeignKey(client: pg.Client, object: DeferredObject): Promise<Built> {
  const [add = "", validate] = buildSql(object);
  const valid = await constraintValid(client, object);
  if (valid === undefined)
    await withShortLock(client, [add], { deadline: Date.now() + PATIENCE_MS });
  await comment(client, object, `constraint ${ident(object.name)} on ${tableOf(object)}`);
  if (valid === true || validate === undefined) return "built";
  try {
    await client.query(validate);
    return "built";
  } catch (error) {
    // A row refers to nothing: verify finds and repairs it, or a person does.
    if (sqlState(error) !== "23503" || !(error instanceof Error)) throw error;
    return { unproven: error.message };
  }
}

/** Undefined: there is none by this name. */
async function constraintValid(
  client: pg.Client,
  object: DeferredObject,
): Promise<boolean | undefined> {
  const [row] = await run(
    client,
    "select convalidated::text from pg_constraint where conrelid = $1::regclass and conname = $2",
    [tableOf(object), object.name],
  );
  return row === undefined ? undefined : row[0] === "true";
}

async function comment(client: pg.Client, object: DeferredObject, on: string): Promise<void> {
  if (object.comment !== null) await client.query(`comment on ${on} is ${literal(object.comment)}`);
}
