import pg from "pg";
import { CrossfadeError, messageOf } from "../../config/errors.ts";
import { describeDatabase } from "../../config/describe.ts";
import type { Side } from "../../config/words.ts";
import { ident } from "./quote.ts";

/**
 * Values travel as Postgres text, never as JS numbers, dates or parsed JSON (DESIGN §2.5): a value that is not parsed
 * cannot be changed. Our own columns are converted where they are used.
 */
const TEXT_ONLY: pg.CustomTypesConfig = {
  getTypeParser: () => (value: unknown) => value as string,
};

export interface SessionOptions {
  readonly url: string;
  /** For messages: which database of the plan this is. */
  readonly name: string;
  /** Shown in pg_stat_activity, and how a successor finds the sessions to end. */
  readonly application: string;
  /** Names in expressions resolve here first; pg_temp comes last, so that no temporary table shadows a real one. */
  readonly searchPath?: string;
  /** ms; 0 or absent: the server's own. A paused process gives its locks back after this. */
  readonly idleInTransactionMs?: number;
  readonly lockTimeoutMs?: number;
  readonly statementTimeoutMs?: number;
  /** Rows as pg's usual JS types: for our own small tables. Default: text only. */
  readonly parseTypes?: boolean;
}

/** The name under which sessions of a role appear in pg_stat_activity (at most 63 bytes). */
export function applicationName(plan: string, role: string, instance: string): string {
  return `crossfade ${role} ${instance} ${plan}`.slice(0, 63);
}

/**
 * A database may be set to acknowledge commits that a crash takes back. What one of our processes has been told another one builds on,
 * in another database.
 */
export const KEEP_COMMITS =
  "select set_config('synchronous_commit', 'local', false) where current_setting('synchronous_commit') = 'off'";

/** Settings under which text output is exact and the same on both servers. */
function pinnedSettings(options: SessionOptions): string[] {
  const settings = [
    "set timezone = 'UTC'",
    "set datestyle = 'ISO, MDY'",
    "set intervalstyle = 'postgres'",
    "set extra_float_digits = 1",
    "set bytea_output = 'hex'",
    "set lc_monetary = 'C'",
    "set xmloption = 'content'",
    "set row_security = off",
    // Compiling a catalog query takes seconds where running it takes milliseconds.
    "set jit = off",
    "set default_transaction_isolation = 'read committed'",
    `set search_path = ${options.searchPath === undefined ? "pg_catalog" : ident(options.searchPath)}, pg_temp`,
  ];
  if (options.idleInTransactionMs !== undefined) {
    settings.push(
      `set idle_in_transaction_session_timeout = ${Math.round(options.idleInTransactionMs)}`,
    );
  }
  if (options.lockTimeoutMs !== undefined)
    settings.push(`set lock_timeout = ${Math.round(options.lockTimeoutMs)}`);
  if (options.statementTimeoutMs !== undefined)
    settings.push(`set statement_timeout = ${Math.round(options.statementTimeoutMs)}`);
  return settings;
}

/**
 * One session of ours: a dedicated connection (never a pool's), with pinned settings.
 * Throws DATABASE_UNREACHABLE if the database cannot be reached or refuses the login. The caller ends it.
 */
export async function openSession(options: SessionOptions): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: options.url,
    application_name: options.application,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    ...(options.parseTypes === true ? {} : { types: TEXT_ONLY }),
  });
  // A connection that breaks while idle emits 'error'; the next query reports it, so nothing is hidden here.
  client.on("error", () => {});
  try {
    await client.connect();
    await client.query([...pinnedSettings(options), KEEP_COMMITS].join("; "));
  } catch (error) {
    client.end().catch(() => {});
    throw new CrossfadeError(
      "DATABASE_UNREACHABLE",
      `${options.name} (${describeDatabase(options.url)}): ${messageOf(error)}`,
      {
        hint: `Check that the server runs, and the address, user, password and privileges in the plan.`,
        cause: error,
      },
    );
  }
  return client;
}

/** Ends a session without waiting for a server that is gone. */
export async function closeSession(client: pg.Client): Promise<void> {
  await Promise.race([
    client.end().catch(() => {}),
    new Promise((resolve) => setTimeout(resolve, 1_000).unref()),
  ]);
}

/** Runs `work` in a transaction of `client`; rolls back on any error. */
export async function inTransaction<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  await client.query("begin");
  try {
    const result = await work();
    await client.query("commit");
    return result;
  } catch (error) {
    // If the connection is gone the server has rolled back already; the first error is the one that matters.
    await client.query("rollback").catch(() => {});
    throw error;
  }
}

/** SQLSTATE of an error from the server, or undefined. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/**
 * Whether the server refused a statement for what it says. Anything else (a connection that broke, a session that was ended, a
 * lock, a full disk) says nothing about it, and may be gone the next time.
 */
export function isFaultOfStatement(error: unknown): boolean {
  const state = sqlState(error);
  return state !== undefined && !/^(08|25|40|53|55|57|58|F0|XX)/.test(state);
}

export function sideLabel(side: Side): string {
  return `${side} database`;
}
