import { randomBytes } from "node:crypto";
import type pg from "pg";
import { CrossfadeError } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { readDeferred, recordDeferred } from "../store/control/deferred-objects.ts";
import type { ControlStore } from "../store/control/open.ts";
import { type DeferrableObjects, findDeferrable } from "../store/postgres/deferrable.ts";
import { tryReplicaRole } from "../store/postgres/engine.ts";
import { tryLead } from "../store/postgres/leader.ts";
import { DEFER_LOCK } from "../store/postgres/locks.ts";
import type { CompiledDirection } from "../store/postgres/mapping.ts";
import { buildSql, dropObject } from "../store/postgres/rebuild.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../store/postgres/session.ts";
import { run } from "../store/postgres/statement.ts";

const LOCK_POLL_MS = 250;

export interface DeferOptions {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Drops what `backfill.defer` names, for the time of the copy. The definitions are in the control store before the first is gone, so
 * that whoever comes later can build them; dying anywhere in here costs a repetition. Throws DATABASE_UNFIT, before anything is
 * dropped, where this role could not build them again.
 */
export async function deferObjects(
  { plan, store, log, signal }: DeferOptions,
  compiled: CompiledDirection,
): Promise<void> {
  await using session = await openDeferSession(plan);
  const { client } = session;
  while (!(await tryLead(client, DEFER_LOCK))) await pause(signal);
  const { objects, unfit } = await deferrableOf(client, plan, compiled);
  if (unfit.length > 0)
    throw new CrossfadeError(
      "DATABASE_UNFIT",
      `backfill.defer: ${unfit.join("; ")}: what is dropped could not be built again`,
      {
        hint: "Grant what is missing, or take it out of backfill.defer: the copy is slower, not less.",
      },
    );
  await recordDeferred(store, objects);
  for (const object of await readDeferred(store)) {
    if (object.state !== "dropped") continue;
    signal.throwIfAborted();
    log.info(
      { table: object.table, name: object.name, sql: buildSql(object) },
      `backfill: ${object.kind} ${object.name} of ${object.table} is dropped while rows are copied`,
    );
    await dropObject(client, object);
  }
}

/** What would be dropped now, for `check` and `--dry-run`. Changes nothing. */
export async function wouldDefer(
  plan: Plan,
  compiled: CompiledDirection,
): Promise<DeferrableObjects> {
  await using session = await openDeferSession(plan);
  return await deferrableOf(session.client, plan, compiled);
}

async function deferrableOf(
  client: pg.Client,
  plan: Plan,
  compiled: CompiledDirection,
): Promise<DeferrableObjects> {
  const replicaRole = await tryReplicaRole(client);
  if (replicaRole) await run(client, "reset session_replication_role");
  return findDeferrable(client, compiled, plan.backfill.defer, replicaRole);
}

/** A session on the new side. No statement has a limit in time: a large index takes what it takes. */
export async function openDeferSession(
  plan: Plan,
  searchPath?: string,
): Promise<AsyncDisposable & { readonly client: pg.Client }> {
  const client = await openSession({
    url: plan.new.database,
    name: sideLabel("new"),
    application: applicationName(plan.name, "defer", randomBytes(3).toString("hex")),
    idleInTransactionMs: 30_000,
    statementTimeoutMs: 0,
    lockTimeoutMs: 0,
    ...(searchPath === undefined ? {} : { searchPath }),
  });
  return { client, [Symbol.asyncDispose]: () => closeSession(client) };
}

/** Until the lock is asked for again. Waiting inside of Postgres would hold a snapshot that the one who builds has to wait for. */
export async function pause(signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
  signal.throwIfAborted();
}
