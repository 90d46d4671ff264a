import type pg from "pg";
import type { AdvisoryLock } from "./locks.ts";
import { run } from "./statement.ts";

/** Tries to take a session-level lock; it is held until the session ends. */
export async function tryLead(client: pg.ClientBase, lock: AdvisoryLock): Promise<boolean> {
  const [row] = await run(client, "select pg_try_advisory_lock($1::int, $2::int)::text", [
    lock.classId,
    lock.objectId,
  ]);
  return row?.[0] === "true";
}

/** Ends the session that holds a lock: for a holder whose process is paused or unreachable. */
export async function endLeader(client: pg.ClientBase, lock: AdvisoryLock): Promise<void> {
  await run(
    client,
    `select pg_terminate_backend(pid) from pg_locks
     where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
       and classid = $1::bigint::oid and objid = $2::bigint::oid and objsubid = 2 and granted and pid <> pg_backend_pid()`,
    [lock.classId, lock.objectId],
  );
}

/**
 * Ends the sessions an earlier process of this role left on a server (DESIGN §2.2): a paused one must not commit what
 * it read before the successor began. Returns once they are gone.
 */
export async function endSessionsOf(
  client: pg.ClientBase,
  prefix: string,
  ownApplication: string,
): Promise<void> {
  for (;;) {
    const rows = await run(
      client,
      `select pg_terminate_backend(pid)::text from pg_stat_activity
       where datname = current_database() and starts_with(application_name, $1) and application_name <> $2`,
      [prefix, ownApplication],
    );
    if (rows.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
