import type pg from "pg";
import { run } from "./statement.ts";
import type { TextRow } from "./statement.ts";

/** What a server says about what could be in the way of a next phase. A text says why it says nothing. */
export interface ServerHealth {
  readonly transactions: Transactions | string;
  /** What streams WAL and replays it; logical followers, backups and archivers are no standbys. */
  readonly replicas: readonly Replica[] | string;
  readonly slots: readonly RetainingSlot[];
  readonly databaseBytes: number;
}

/** As the server names it: `18.1`, or with its packager `15.14 (Debian 15.14-0+deb12u1)`. */
export async function serverVersion(client: pg.ClientBase): Promise<string> {
  const [row] = await run(client, "show server_version");
  return row?.[0] ?? "unknown";
}

export interface Transactions {
  readonly open: number;
  readonly oldest: OldTransaction | undefined;
}

export interface OldTransaction {
  /** In words: who, and what it does. */
  readonly who: string;
  /** SQL that ends it. */
  readonly end: string;
  readonly ageMs: number;
}

export interface Replica {
  readonly name: string;
  /** `streaming`, or what it does instead. */
  readonly state: string;
  /** Null: it has not replayed anything yet that would tell. */
  readonly lagMs: number | null;
}

export interface RetainingSlot {
  readonly name: string;
  readonly bytes: number;
  readonly active: boolean;
  /** The server has removed, or is about to remove, WAL that it needs. */
  readonly lost: boolean;
}

const HIDDEN = "our role may not see it: grant pg_monitor";

/** Sessions of the app, of people and of other tools; what Crossfade itself does ends by itself. */
const SESSIONS = `pg_stat_activity where backend_type = 'client backend' and datname = current_database()
  and pid <> pg_backend_pid() and application_name not like 'crossfade %'`;

/** One round of questions; changes nothing. */
export async function readServerHealth(client: pg.ClientBase): Promise<ServerHealth> {
  const transactions = await run(
    client,
    `select pid::text, usename::text, application_name, state, left(query, 120),
       (extract(epoch from clock_timestamp() - xact_start) * 1000)::text as age
     from ${SESSIONS} and xact_start is not null
     union all
     select null, owner::text, gid, null, null, (extract(epoch from clock_timestamp() - prepared) * 1000)::text
     from pg_prepared_xacts where database = current_database()`,
  );
  const hidden = await run(
    client,
    `select 1 from pg_stat_activity where datname = current_database() and usename is not null
       and usename <> current_user and state is null and backend_type is null limit 1`,
  );
  const replicas = await run(
    client,
    `select coalesce(nullif(r.application_name, ''), host(r.client_addr), 'pid ' || r.pid), r.state,
       (case when r.replay_lsn >= pg_current_wal_lsn() then 0 else extract(epoch from r.replay_lag) * 1000 end)::text,
       r.replay_lsn::text
     from pg_stat_replication r
     where not exists (select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')
     order by 1`,
  );
  const slots = await run(
    client,
    `select slot_name, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::text, active::text,
       (wal_status in ('unreserved', 'lost'))::text
     from pg_replication_slots order by 1`,
  );
  const [size] = await run(client, "select pg_database_size(current_database())::text");
  return {
    transactions: hidden.length > 0 ? HIDDEN : toTransactions(transactions),
    replicas: replicas.some(([, state]) => state === null) ? HIDDEN : toReplicas(replicas),
    slots: slots.map(([name, bytes, active, lost]) => ({
      name: name ?? "",
      bytes: Number(bytes),
      active: active === "true",
      lost: lost === "true",
    })),
    databaseBytes: Number(size?.[0]),
  };
}

function toTransactions(rows: readonly TextRow[]): Transactions {
  const oldest = rows.toSorted((a, b) => Number(b[5]) - Number(a[5]))[0];
  if (oldest === undefined) return { open: 0, oldest: undefined };
  const [pid, user, name, state, query, age] = oldest;
  const said = (query ?? "").replaceAll(/\s+/g, " ").trim();
  const gid = `'${(name ?? "").replaceAll("'", "''")}'`;
  const of =
    pid == null
      ? { who: `prepared transaction ${gid} of ${user}`, end: `rollback prepared ${gid}` }
      : {
          who: `pid ${pid} (${user}${name === "" ? "" : `, ${name}`}, ${state}): ${said}`,
          end: `select pg_terminate_backend(${pid})`,
        };
  return { open: rows.length, oldest: { ...of, ageMs: Number(age) } };
}

/** Who never replays (an archiver) or copies the whole (a backup) is not a standby. */
function toReplicas(rows: readonly TextRow[]): Replica[] {
  return rows
    .filter(
      ([, state, , replayed]) => state !== "backup" && (state !== "streaming" || replayed !== null),
    )
    .map(([name, state, lag]) => ({
      name: name ?? "",
      state: state ?? "",
      lagMs: lag == null ? null : Number(lag),
    }));
}
