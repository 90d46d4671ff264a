import type pg from "pg";
import { run, runPrepared, type TextRow } from "./statement.ts";
import type { SyncContext } from "./sync.ts";

/**
 * A sync holds locks on the target while rows travel. The server ends a transaction in which nothing happens, so that a
 * paused process gives its locks back; here a process that is alive says so.
 */

/** Well below the limit of a sync session. */
const TOUCH_MS = 2_000;
/** Values below this travel within any limit. */
const LARGE_BYTES = 1 << 20;
/** What even a slow link carries in a millisecond, with time to spare for writing it. */
const BYTES_PER_MS = 500;

/** Runs a prepared statement of a sync on `client`. While it runs on the source, the target is kept waiting. */
export function runInSync(
  context: SyncContext,
  client: pg.Client,
  sql: string,
  values: readonly unknown[],
): Promise<TextRow[]> {
  return client === context.target
    ? send(context, sql, values)
    : keepWaiting(context, () => runPrepared(client, sql, values));
}

/** The same for a statement that comes once: chunks have their bounds in it. */
export function runOnceInSync(
  context: SyncContext,
  client: pg.Client,
  sql: string,
): Promise<TextRow[]> {
  return client === context.target
    ? run(client, sql)
    : keepWaiting(context, () => run(client, sql));
}

/** Waits for `work`, which does not use the target. The target's transaction lives as long as this process does. */
export async function keepWaiting<T>({ target }: SyncContext, work: () => Promise<T>): Promise<T> {
  let touched: Promise<unknown> = Promise.resolve();
  const timer = setInterval(() => {
    // What is wrong with the session shows in the next statement of the sync.
    touched = touched.then(() => run(target, "select 1")).catch(() => {});
  }, TOUCH_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await touched;
  }
}

/** While one message travels nothing else can be said on its session: large ones get their time beforehand. */
async function send(
  { target }: SyncContext,
  sql: string,
  values: readonly unknown[],
): Promise<TextRow[]> {
  const bytes = textSize(values);
  if (bytes > LARGE_BYTES) {
    const extra = Math.ceil(bytes / BYTES_PER_MS);
    await run(
      target,
      `select set_config(name, (setting::bigint + ${extra})::text, true) from pg_settings
       where name in ('idle_in_transaction_session_timeout', 'statement_timeout') and setting::bigint > 0`,
    );
  }
  return runPrepared(target, sql, values);
}

/** Characters in texts and arrays of texts. */
export function textSize(value: unknown): number {
  if (typeof value === "string") return value.length;
  return Array.isArray(value)
    ? value.reduce<number>((sum, item: unknown) => sum + textSize(item), 0)
    : 0;
}
