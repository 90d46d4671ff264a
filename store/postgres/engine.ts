import type pg from "pg";
import type { Plan } from "../../config/plan-types.ts";
import { type Direction, type Side, sourceOf, targetOf } from "../../config/words.ts";
import { type Catalog, readCatalog } from "./catalog.ts";
import { compileDirection, isSameDatabase } from "./compile.ts";
import { refuseUnlogged } from "./logged-tables.ts";
import { allMappings, type CompiledDirection } from "./mapping.ts";
import {
  applicationName,
  closeSession,
  inTransaction,
  openSession,
  sideLabel,
  sqlState,
} from "./session.ts";
import { refuseChanged, ShapeWatch } from "./shape-watch.ts";
import { run } from "./statement.ts";
import { refuseActions } from "./target-actions.ts";
import type { SyncContext } from "./sync.ts";

/** A paused process gives its locks back after these; a sync that is alive never comes near them. */
const IDLE_IN_TRANSACTION_MS = 10_000;
const LOCK_TIMEOUT_MS = 10_000;

export interface EngineOptions {
  readonly plan: Plan;
  readonly direction: Direction;
  readonly epoch: number;
  /** `mirror`, `backfill`, … : how a successor finds the sessions. */
  readonly role: string;
  readonly instance: string;
  /** ms for one statement; a chunk of a slow table may need long. */
  readonly statementTimeoutMs?: number;
}

/** A sync context with the sessions it owns. */
export interface Engine {
  readonly context: SyncContext;
  /** Foreign-key actions and user triggers of the target are off in our sessions. */
  readonly replicaRole: boolean;
  close(): Promise<void>;
}

/** Opens the sessions of a sync worker and resolves the plan's mappings against both catalogs. */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const { plan, direction, epoch } = options;
  const opened: pg.Client[] = [];
  const close = async () => {
    await Promise.all(opened.map(closeSession));
  };
  try {
    const from = sourceOf(direction);
    const to = targetOf(direction);
    const source = await openSyncSession(options, from, plan[from].schema);
    opened.push(source);
    // Expressions see the new schema. Between two databases nothing but plain rows reaches the old one.
    const target = await openSyncSession(
      options,
      to,
      isSameDatabase(plan) ? plan.new.schema : plan[to].schema,
    );
    opened.push(target);
    const sides = [
      { client: source, side: from, schema: plan[from].schema, role: "source" as const },
      { client: target, side: to, schema: plan[to].schema, role: "target" as const },
    ] as const;
    // DDL first: a plan that does not fit any more is only its consequence.
    const [ofSource, ofTarget] = [await refuseChanged(sides[0]), await refuseChanged(sides[1])];
    const compiled = await compileOn(plan, direction, {
      old: from === "old" ? source : target,
      new: from === "new" ? source : target,
    });
    await refuseUnlogged(source, compiled);
    const targets = new Set(allMappings(compiled).map(({ mapping }) => mapping.target.name));
    const shapes = await ShapeWatch.open([
      { ...sides[0], tables: compiled.logged.map(({ name }) => name), taken: ofSource },
      { ...sides[1], tables: [...targets], taken: ofTarget },
    ]);
    const replicaRole = await tryReplicaRole(target);
    if (!replicaRole) refuseActions(compiled, plan);
    // The position is stored with the rows: what the source is told must survive a crash of the target.
    await run(target, "set synchronous_commit = on");
    return {
      context: { compiled, epoch, feed: plan.feed, source, target, shapes },
      replicaRole,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function openSyncSession(
  options: EngineOptions,
  side: Side,
  searchPath: string,
): Promise<pg.Client> {
  return openSession({
    url: options.plan[side].database,
    name: sideLabel(side),
    application: applicationName(options.plan.name, options.role, options.instance),
    searchPath,
    idleInTransactionMs: IDLE_IN_TRANSACTION_MS,
    lockTimeoutMs: LOCK_TIMEOUT_MS,
    statementTimeoutMs: options.statementTimeoutMs ?? 60_000,
  });
}

/** DESIGN §2.1: no foreign-key action and no user trigger of the target runs, where the privilege exists. */
export async function tryReplicaRole(target: pg.Client): Promise<boolean> {
  try {
    await run(target, "set session_replication_role = replica");
    return true;
  } catch (error) {
    // The privilege is missing, which `check` reports; foreign keys are then kept by order and deferral.
    if (sqlState(error) !== "42501") throw error;
    return false;
  }
}

/** Resolves one direction of the plan. Throws PlanError with everything that does not hold. Changes nothing. */
export async function compilePlan(
  plan: Plan,
  direction: Direction,
  role: string,
  instance: string,
): Promise<CompiledDirection> {
  const opened: pg.Client[] = [];
  const open = async (side: Side) => {
    const session = await openSession({
      url: plan[side].database,
      name: sideLabel(side),
      application: applicationName(plan.name, role, instance),
      searchPath: plan[side].schema,
    });
    opened.push(session);
    return session;
  };
  try {
    // One after the other: the old side's error comes first, and no session is left half open.
    return await compileOn(plan, direction, { old: await open("old"), new: await open("new") });
  } finally {
    await Promise.all(opened.map(closeSession));
  }
}

/** The same on sessions that are open; on new the new schema comes first in the search_path, on the source its own. */
async function compileOn(
  plan: Plan,
  direction: Direction,
  sessions: Readonly<Record<Side, pg.Client>>,
): Promise<CompiledDirection> {
  const catalog = async (side: Side): Promise<Catalog> =>
    inTransaction(sessions[side], async () => {
      // Names of types keep their schema.
      await run(sessions[side], "set local search_path = pg_catalog, pg_temp");
      return readCatalog(sessions[side], plan[side].schema);
    });
  const [old, next] = await Promise.all([catalog("old"), catalog("new")]);
  const catalogs = { old, new: next };
  return compileDirection({
    plan,
    direction,
    sourceCatalog: catalogs[sourceOf(direction)],
    targetCatalog: catalogs[targetOf(direction)],
    sourceClient: sessions[sourceOf(direction)],
    mappingClient: sessions.new,
  });
}
