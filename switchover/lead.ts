import type pg from "pg";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { ControlStore } from "../store/control/open.ts";
import { controllerLock } from "../store/postgres/locks.ts";
import { applicationName, closeSession, openSession } from "../store/postgres/session.ts";

const PING_MS = 2_000;
/** A paused controller loses the lead after this: its session then ends by itself, and its successor takes over. */
const PAUSED_MS = 10_000;

/** The lead: a session lock on the control database. The session is the lead; when it is gone, so is the lead. */
export class Lead {
  readonly #client: pg.Client;
  readonly #abort = new AbortController();
  readonly #ping: NodeJS.Timeout;

  constructor(client: pg.Client, log: Log) {
    this.#client = client;
    const lost = () => {
      if (!this.signal.aborted) log.warn({}, "controller: the lead is lost");
      this.#abort.abort(new CrossfadeError("STALE", "this controller does not lead any more"));
    };
    client.once("end", lost);
    client.once("error", lost);
    this.#ping = setInterval(() => void this.check().catch(lost), PING_MS);
  }

  /** Aborted when the lead is lost. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Throws STALE when the lead is lost, as the server sees it. */
  readonly check = async (): Promise<void> => {
    this.signal.throwIfAborted();
    try {
      await this.#client.query("select 1");
    } catch (error) {
      this.#abort.abort(
        new CrossfadeError("STALE", `this controller does not lead any more: ${messageOf(error)}`),
      );
    }
    this.signal.throwIfAborted();
  };

  async release(): Promise<void> {
    clearInterval(this.#ping);
    this.#client.removeAllListeners("end");
    await closeSession(this.#client);
    this.#abort.abort(new CrossfadeError("STALE", "this controller gave up the lead"));
  }
}

/** Takes the lead if nobody has it. */
export async function tryLead(store: ControlStore, log: Log): Promise<Lead | undefined> {
  if (await someoneLeads(store)) return undefined;
  const client = await openSession({
    url: store.url,
    name: "control database",
    application: applicationName(store.plan, "lead", store.instance),
    statementTimeoutMs: 5_000,
    parseTypes: true,
  });
  try {
    const { classId, objectId } = controllerLock(store.plan);
    const { rows } = await client.query<{ locked: boolean }>(
      "select pg_try_advisory_lock($1, $2) as locked",
      [classId, objectId],
    );
    if (rows[0]?.locked === true) {
      await client.query(`set idle_session_timeout = ${PAUSED_MS}`);
      return new Lead(client, log);
    }
  } catch (error) {
    await closeSession(client);
    throw error;
  }
  await closeSession(client);
  return undefined;
}

/** Whether some controller leads right now. */
export async function someoneLeads(store: ControlStore): Promise<boolean> {
  const { classId, objectId } = controllerLock(store.plan);
  const { rowCount } = await store.pool.query(
    `select 1 from pg_locks where locktype = 'advisory' and classid = $1::int::oid and objid = $2::int::oid and objsubid = 2 and granted
       and database = (select oid from pg_database where datname = current_database())`,
    [classId, objectId],
  );
  return rowCount !== 0;
}
