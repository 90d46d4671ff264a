import type pg from "pg";
import type { AdvisoryLock } from "./locks.ts";

/** A session that is in the way of a lock. */
export interface Blocker {
  /** 0: a prepared transaction, which has no session. */
  readonly pid: number;
  /** `client backend`, `autovacuum worker`, … */
  readonly kind: string;
  readonly state: string;
  /** Seconds since its transaction began. */
  readonly ageSeconds: number;
  /** Its current or last statement, shortened. */
  readonly query: string;
}

interface RawBlocker {
  pid: string | null;
  kind: string | null;
  state: string | null;
  age: string | null;
  query: string | null;
}

const COLUMNS = `distinct on (l.pid) l.pid::text, a.backend_type as kind, a.state,
  extract(epoch from clock_timestamp() - a.xact_start)::int::text as age, left(a.query, 120) as query`;

/** Modes that conflict with ShareRowExclusive, which creating, enabling and disabling a trigger takes. */
const CONFLICTING = [
  "RowExclusiveLock",
  "ShareUpdateExclusiveLock",
  "ShareLock",
  "ShareRowExclusiveLock",
  "ExclusiveLock",
  "AccessExclusiveLock",
];

/** Who holds a table (or one of its partitions) so that no trigger can be changed. `table`: quoted, schema-qualified. */
export async function tableBlockers(client: pg.ClientBase, table: string): Promise<Blocker[]> {
  const { rows } = await client.query<RawBlocker>(
    `select ${COLUMNS}
     from pg_locks l left join pg_stat_activity a on a.pid = l.pid
     where l.granted and l.locktype = 'relation' and l.mode = any($2)
       and l.database = (select oid from pg_database where datname = current_database())
       and l.relation in (select to_regclass($1) union all select relid from pg_partition_tree(to_regclass($1)))
       and l.pid is distinct from pg_backend_pid()
     order by l.pid`,
    [table, CONFLICTING],
  );
  return rows.map(toBlocker);
}

/** Who holds an advisory lock, shared or exclusively, in a transaction that has been open for so long. */
export async function lockBlockers(
  client: pg.ClientBase,
  lock: AdvisoryLock,
  openForMs = 0,
): Promise<Blocker[]> {
  const { rows } = await client.query<RawBlocker>(
    `select ${COLUMNS}
     from pg_locks l left join pg_stat_activity a on a.pid = l.pid
     where l.granted and l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objid = $2::bigint::oid and l.objsubid = 2
       and l.database = (select oid from pg_database where datname = current_database())
       and l.pid is distinct from pg_backend_pid()
       and (a.xact_start is null or clock_timestamp() - a.xact_start >= $3::int * interval '1 millisecond')
     order by l.pid`,
    [lock.classId, lock.objectId, Math.round(openForMs)],
  );
  return rows.map(toBlocker);
}

/**
 * Asks autovacuum workers to step aside. They would do so by themselves only after a waiter has waited for
 * `deadlock_timeout`, and we never let writers queue behind us that long. Without the privilege it does nothing.
 */
export async function cancelAutovacuum(
  client: pg.ClientBase,
  blockers: readonly Blocker[],
): Promise<void> {
  for (const { pid } of blockers.filter((blocker) => blocker.kind === "autovacuum worker")) {
    await client.query("select pg_cancel_backend($1)", [pid]).catch(() => {});
  }
}

/** One line for a message: whom to ask, or to end. */
export function describeBlockers(blockers: readonly Blocker[]): string {
  if (blockers.length === 0) return "nobody holds it right now";
  const lines = blockers
    .slice(0, 5)
    .map(({ pid, kind, state, ageSeconds, query }) =>
      pid === 0
        ? "a prepared transaction"
        : `pid ${pid} (${kind}, ${state}, open for ${ageSeconds} s): ${query.replaceAll(/\s+/g, " ")}`,
    );
  const more = blockers.length - lines.length;
  return lines.join("; ") + (more > 0 ? `; and ${more} more` : "");
}

function toBlocker(row: RawBlocker): Blocker {
  return {
    pid: Number(row.pid ?? 0),
    kind: row.kind ?? "prepared transaction",
    state: row.state ?? "unknown",
    ageSeconds: Number(row.age ?? 0),
    query: row.query ?? "",
  };
}
