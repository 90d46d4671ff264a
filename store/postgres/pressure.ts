import type pg from "pg";
import { run } from "./statement.ts";

/** What a server says of its load. A text says why it says nothing. */
export interface ServerPressure {
  /** Of the slowest replica; 0 without replicas. */
  readonly replicaLagMs: number | string;
  /** Sessions that run a statement, without Crossfade's own. */
  readonly active: number | string;
  /** Where the WAL stands, in bytes. */
  readonly walBytes: number;
}

const HIDDEN = "our role may not see it: grant pg_monitor";

/** Reads the load of a server. Logical followers are no replicas: only what streams WAL as it is counts. */
export async function readPressure(client: pg.ClientBase): Promise<ServerPressure> {
  const [row] = await run(
    client,
    `select (select count(*) from pg_stat_replication where state is null)::text,
       (select coalesce(max(extract(epoch from r.replay_lag) * 1000), 0) from pg_stat_replication r
        where not exists (select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical'))::float8::text,
       (select count(*) from pg_stat_activity where backend_type = 'client backend' and state = 'active'
          and pid <> pg_backend_pid() and application_name not like 'crossfade %')::text,
       (select count(*) from pg_stat_activity where usename is not null and usename <> current_user and state is null and backend_type is null)::text,
       (pg_current_wal_lsn() - '0/0')::text`,
  );
  const [hiddenReplicas, lag, active, hiddenSessions, wal] = row ?? [];
  return {
    replicaLagMs: Number(hiddenReplicas) > 0 ? HIDDEN : Number(lag),
    active: Number(hiddenSessions) > 0 ? HIDDEN : Number(active),
    walBytes: Number(wal),
  };
}
