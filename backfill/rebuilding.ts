import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { RunningState } from "../config/lifecycle.ts";
import { type Phase, phaseIndex } from "../config/words.ts";
import { progress } from "../store/control/chunk-ledger.ts";
import { type DeferredRow, readDeferred, setDeferred } from "../store/control/deferred-objects.ts";
import { lastVerifyRun } from "../store/control/verify-runs.ts";
import { readMigration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import type pg from "pg";
import type { StateWatcher } from "../store/control/watch.ts";
import { tryLead } from "../store/postgres/leader.ts";
import { DEFER_LOCK } from "../store/postgres/locks.ts";
import { relation } from "../store/postgres/quote.ts";
import { type Built, buildObject } from "../store/postgres/rebuild.ts";
import { sqlState } from "../store/postgres/session.ts";
import { run } from "../store/postgres/statement.ts";
import { type DeferOptions, openDeferSession, pause } from "./deferring.ts";

const LOOK_MS = 2_000;
/** After something that cannot be built: rows are read again each time it is tried. */
const FIRST_RETRY_MS = 5_000;
const LAST_RETRY_MS = 300_000;
/** A backend whose client was killed notices within this time, and leaves an invalid index to the next. */
const CLIENT_GONE_MS = 2_000;

/**
 * Builds again what was dropped for the copy, as soon as every chunk is copied, until the loop stops. After a failure it waits longer
 * each time, unless rows were compared meanwhile: what a foreign key lacked may be repaired. Also after a crash: what is to be done
 * stands in the control store, and what was done is looked up in the catalog.
 */
export async function rebuildWhenCopied(
  options: Omit<DeferOptions, "signal">,
  loop: RunningState,
  state: StateWatcher,
): Promise<void> {
  let retryMs = FIRST_RETRY_MS;
  let failed: { readonly at: number; readonly compared: string } | undefined;
  while (loop.shouldRun()) {
    let error: unknown;
    // Going back takes triggers off tables: that waits for a build, which whoever goes back begins anew.
    const left = new AbortController();
    const off = state.onChange(({ phase }) => {
      if (!mayBuild(phase)) left.abort(new Error(`the migration went to ${phase}`));
    });
    try {
      const wanted = () => isCopied(options.store);
      if ((await openObjects(options.store)).length > 0 && (await wanted())) {
        const compared = await lastCompared(options.store);
        if (
          failed === undefined ||
          failed.compared !== compared ||
          performance.now() > failed.at + retryMs
        ) {
          const signal = AbortSignal.any([loop.signal, left.signal]);
          const open = await rebuildDeferred({ ...options, signal }, { wanted, wait: false });
          retryMs = failed === undefined ? FIRST_RETRY_MS : Math.min(LAST_RETRY_MS, retryMs * 2);
          failed = open.some((row) => row.error !== undefined)
            ? { at: performance.now(), compared }
            : undefined;
        }
      }
      loop.healthy();
    } catch (caught) {
      error = left.signal.aborted ? undefined : caught;
    } finally {
      off();
    }
    await loop.backoff(error);
    await loop.sleep(LOOK_MS);
  }
}

/** Which comparison was the last to end. */
async function lastCompared(store: ControlStore): Promise<string> {
  const run = await lastVerifyRun(store, "forward");
  return run === undefined ? "none" : `${run.id} ${run.state}`;
}

/** Objects that are not yet as they were. */
export async function openObjects(store: ControlStore): Promise<DeferredRow[]> {
  return (await readDeferred(store)).filter(({ state }) => state !== "built");
}

/** Objects that are not there: what a database that is left behind must have again. */
export async function missingObjects(store: ControlStore): Promise<DeferredRow[]> {
  return (await openObjects(store)).filter(({ state }) => state !== "unproven");
}

function mayBuild(phase: Phase): boolean {
  return phaseIndex(phase) >= phaseIndex("backfill") && phase !== "done";
}

async function isCopied(store: ControlStore): Promise<boolean> {
  const { phase, paused } = await readMigration(store);
  if (!mayBuild(phase) || paused.backfill) return false;
  const tables = await progress(store, "forward");
  return tables.length > 0 && tables.every((table) => table.done === table.chunks);
}

/**
 * Builds what is missing, one after the other, and returns what is left. An object that cannot be built is noted and does not keep the
 * others. `wanted` is asked before each: a copy that begins anew ends it. Without `wait`, nothing is done while somebody else is at it.
 */
export async function rebuildDeferred(
  options: DeferOptions,
  { wanted, wait }: { readonly wanted: () => Promise<boolean>; readonly wait: boolean },
): Promise<DeferredRow[]> {
  const { plan, store, signal } = options;
  await using session = await openDeferSession(plan, plan.new.schema);
  const { client } = session;
  while (!(await tryLead(client, DEFER_LOCK))) {
    if (!wait) return openObjects(store);
    await pause(signal);
  }
  await noticeDeadClient(client);
  using _ = await cancelOnAbort(client, options);
  const indexed = new Set<string>();
  for (const object of await openObjects(store)) {
    signal.throwIfAborted();
    if (!(await wanted())) break;
    const built = await rebuildOne(client, options, object);
    if (built && object.kind === "index") indexed.add(relation(object.schema, object.table));
  }
  // Of an expression that is indexed the planner knows nothing before.
  for (const table of indexed) await run(client, `analyze ${table}`);
  return openObjects(store);
}

async function rebuildOne(
  client: pg.Client,
  { store, log, signal }: DeferOptions,
  object: DeferredRow,
): Promise<boolean> {
  const { kind, name, table } = object;
  const what = { table, name };
  try {
    // Whoever looks meanwhile sees what is waited for; an object that is there already keeps saying so.
    if (object.state === "dropped") await setDeferred(store, object, { state: "building" });
    const built = await buildObject(client, object);
    await setDeferred(store, object, stateAfter(built));
    if (built === "built") log.info(what, `backfill: ${kind} ${name} of ${table} is built again`);
    else if (built === "gone")
      log.warn(what, `backfill: ${kind} ${name} is not built again: table ${table} is gone`);
    else log.warn(what, `backfill: ${kind} ${name} of ${table} is not proven: ${built.unproven}`);
    return built === "built";
  } catch (error) {
    if (signal.aborted || isPassing(error)) throw error;
    await setDeferred(store, object, { state: object.state, error: messageOf(error) });
    log.warn({ ...what, err: error }, `backfill: ${kind} ${name} of ${table}: ${messageOf(error)}`);
    return false;
  }
}

/** A connection that broke, a deadlock, a server that goes: not the object's fault, and tried again at once. */
function isPassing(error: unknown): boolean {
  if (error instanceof CrossfadeError) return false;
  const code = sqlState(error);
  return code === undefined || /^(08|40|57)/.test(code);
}

function stateAfter(built: Built): Parameters<typeof setDeferred>[2] {
  return typeof built === "string"
    ? { state: "built" }
    : { state: "unproven", error: built.unproven };
}

async function noticeDeadClient(client: pg.Client): Promise<void> {
  try {
    await run(client, `set client_connection_check_interval = ${CLIENT_GONE_MS}`);
  } catch (error) {
    // Not every platform can: then the next one waits until the build has ended.
    if (sqlState(error) !== "22023") throw error;
  }
}

/** An index may take hours: a signal ends the statement that runs, not only the next. */
async function cancelOnAbort(
  client: pg.Client,
  { plan, signal, log }: DeferOptions,
): Promise<Disposable> {
  const [row] = await run(client, "select pg_backend_pid()::text");
  const cancel = async () => {
    try {
      await using other = await openDeferSession(plan);
      await run(other.client, "select pg_cancel_backend($1::int)", [row?.[0]]);
    } catch (error) {
      log.warn({ err: error }, `backfill: a build could not be cancelled: ${messageOf(error)}`);
    }
  };
  const onAbort = () => void cancel();
  signal.addEventListener("abort", onAbort, { once: true });
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", onAbort) };
}
