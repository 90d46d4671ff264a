import { createHash } from "node:crypto";
import pg from "pg";
import { describeDatabase } from "../../config/describe.ts";
import { CrossfadeError, messageOf } from "../../config/errors.ts";
import type { Plan } from "../../config/plan-types.ts";
import { relation } from "../postgres/quote.ts";
import { applicationName, KEEP_COMMITS } from "../postgres/session.ts";
import { statementName } from "../postgres/statement.ts";

/** A handle on the control store of one plan. Every statement lives in a function of its own that takes it. */
export interface ControlStore {
  readonly plan: string;
  readonly schema: string;
  /** NOTIFY channel of this plan that everybody listens on. */
  readonly channel: string;
  /** Which process this is: `mirror`, and a name unique among its kind. */
  readonly role: string;
  readonly instance: string;
  /** A secret: never log it. */
  readonly url: string;
  readonly pool: pg.Pool;
  /** Quoted, schema-qualified name of one of the store's tables. */
  table(name: ControlTable): string;
  /** Quoted name of the function that keeps the timeline append-only. */
  readonly appendOnly: string;
}

export const CONTROL_TABLES = [
  "migration",
  "sidecar",
  "worker",
  "command",
  "event",
  "receipt",
  "approval",
  "chunk",
  "verify_run",
  "verify_chunk",
  "pace",
  "series",
  "deferred_object",
  "control_version",
] as const;
export type ControlTable = (typeof CONTROL_TABLES)[number];

export interface ProcessName {
  readonly role: string;
  readonly instance: string;
}

/**
 * Opens the control store. Connects lazily, so that a sidecar starts while the store is away (fail-static):
 * the first statement reports an unreachable database.
 */
export function openControlStore(
  plan: Pick<Plan, "name" | "control">,
  process: ProcessName,
): ControlStore {
  return openStore(plan, process, {
    max: 4,
    // Opening one takes tens of milliseconds, and a flip needs them while writes are held.
    idleTimeoutMillis: 60_000,
  });
}

/** The schema of temporary tables: they end with the session that made them, however that ends. */
export const PASSING_SCHEMA = "pg_temp";

/**
 * A control store that leaves nothing behind: it lives in the one connection that creates it. For looking ahead before
 * anything is installed. As there is one connection, nothing may ask it while a transaction on it is open.
 */
export function openPassingStore(plan: Pick<Plan, "name" | "control">): ControlStore {
  return openStore(
    { name: plan.name, control: { ...plan.control, schema: PASSING_SCHEMA } },
    { role: "cli", instance: "ahead" },
    { max: 1, idleTimeoutMillis: 0 },
  );
}

function openStore(
  plan: Pick<Plan, "name" | "control">,
  process: ProcessName,
  connections: Pick<pg.PoolConfig, "max" | "idleTimeoutMillis">,
): ControlStore {
  const pool = new pg.Pool({
    connectionString: plan.control.database,
    application_name: applicationName(plan.name, process.role, process.instance),
    ...connections,
    connectionTimeoutMillis: 5_000,
    // A black-holed connection must not hang a heartbeat or a controller for ever.
    query_timeout: 15_000,
    idle_in_transaction_session_timeout: 15_000,
    keepAlive: true,
    types: OWN_TYPES,
    // A new connection is handed out after this.
    verify: (client, done) =>
      void client.query(KEEP_COMMITS).then(
        () => done(),
        (error: Error) => done(error),
      ),
  });
  // A connection that breaks while idle is replaced by the pool; the next statement works or reports. One that breaks
  // between two statements of somebody who has taken it reports with the second.
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  const schema = plan.control.schema;
  return {
    plan: plan.name,
    schema,
    channel: planChannel(plan.name, schema),
    ...process,
    url: plan.control.database,
    pool,
    table: (name) => relation(schema, name),
    appendOnly: relation(schema, "event_append_only"),
  };
}

/** Resolves when all of its connections are closed. */
export async function closeControlStore(store: ControlStore): Promise<void> {
  if (!store.pool.ended) await store.pool.end();
}

/**
 * Whom a message is for, where it does not concern everybody: each message wakes whoever listens, and in a flip they all wait for
 * the same processors.
 */
export type Audience = "controller" | "sidecars";

/** The NOTIFY channel of an audience. */
export function channelOf(store: Pick<ControlStore, "channel">, audience: Audience): string {
  return `${store.channel}_${audience}`;
}

function planChannel(plan: string, schema: string): string {
  const hash = createHash("sha256")
    .update(plan + schema)
    .digest("hex");
  return `crossfade_${hash.slice(0, 12)}`;
}

/** One statement on the store. Connection failures become DATABASE_UNREACHABLE, errors of the server stay as they are. */
export async function query<Row extends pg.QueryResultRow>(
  store: ControlStore,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  return send(store, { text, values: [...values] });
}

/** `query` for a statement that comes back often, and while writes are held: planned once per connection. */
export async function queryOften<Row extends pg.QueryResultRow>(
  store: ControlStore,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  return send(store, { name: statementName(text), text, values: [...values] });
}

async function send<Row extends pg.QueryResultRow>(
  store: ControlStore,
  statement: pg.QueryConfig,
): Promise<Row[]> {
  try {
    const { rows } = await store.pool.query<Row>(statement);
    return rows;
  } catch (error) {
    throw explain(store, error);
  }
}

function explain(store: ControlStore, error: unknown): unknown {
  const where = describeDatabase(store.url);
  if (!(error instanceof pg.DatabaseError)) {
    return new CrossfadeError(
      "DATABASE_UNREACHABLE",
      `control database (${where}): ${messageOf(error)}`,
      { hint: REACH_HINT, cause: error },
    );
  }
  // Undefined table or schema: nobody installed the store.
  if (error.code === "42P01" || error.code === "3F000") {
    return new CrossfadeError(
      "DATABASE_UNFIT",
      `control database (${where}): schema ${store.schema} has no control store of Crossfade`,
      {
        hint: "Start `crossfade up` (or any command that changes something) once: it creates the control store.",
        cause: error,
      },
    );
  }
  // Class 28 (login), 3D (database), 57P0x (server going away): the store is not there for us.
  if (/^(28|3D|57P|08|53300)/.test(error.code ?? "")) {
    return new CrossfadeError(
      "DATABASE_UNREACHABLE",
      `control database (${where}): ${messageOf(error)}`,
      { hint: REACH_HINT, cause: error },
    );
  }
  return error;
}

/** A command for one plan must never move another: the ledgers carry no plan in their keys. */
export function refuseOtherPlan({ plan, schema }: ControlStore, owner: string): void {
  if (owner === plan) return;
  throw new CrossfadeError(
    "DATABASE_UNFIT",
    `control schema ${schema} holds the control store of another plan, "${owner}"`,
    {
      hint: `Give the plan ${plan} a control.schema of its own; if it was renamed, name it "${owner}" again.`,
    },
  );
}

/** What to look at when the control database does not answer. */
export const REACH_HINT =
  "Check that the server runs, and the address, user, password and privileges in the plan (control.database; left out: old.database).";

/** Like pg's usual types, but counters (int8, numeric) as numbers: they are our own and stay far below 2^53. */
const OWN_TYPES: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: "text" | "binary") =>
    oid === 20 || oid === 1700
      ? Number
      : pg.types.getTypeParser(oid, format ?? "text")) as typeof pg.types.getTypeParser,
};
