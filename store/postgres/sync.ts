import type pg from "pg";
import { CrossfadeError } from "../../config/errors.ts";
import type { Plan } from "../../config/plan-types.ts";
import { Later } from "./later.ts";
import { sqlState } from "./session.ts";
import { GUARD_STATE } from "./shape.ts";
import { literal } from "./quote.ts";
import { chunkLock, directionLock, STRIPES } from "./locks.ts";
import type { CompiledDirection, Driver } from "./mapping.ts";
import type { ShapeWatch } from "./shape-watch.ts";
import { prepareForBatch, runBatch, runPrepared, type TextRow } from "./statement.ts";
import { MIRROR_MESSAGE } from "./wal-feed.ts";

/** What one sync session works with. `mapper` is where expressions run: the new side. */
export interface SyncContext {
  readonly compiled: CompiledDirection;
  readonly epoch: number;
  /** wal: what a sync writes is marked in the target's WAL, for the target's own feed. */
  readonly feed: Plan["feed"];
  readonly source: pg.Client;
  readonly target: pg.Client;
  /** Notices DDL on the tables of both sides. */
  readonly shapes: ShapeWatch;
}

/** Stripes a scope covers, per source table. */
export interface Scope {
  readonly driver: Driver;
  readonly stripes: readonly number[];
  /** Version of the chunk plan the stripes were computed with. */
  readonly planVersion: number;
}

/** The chunk plan of a table changed between computing stripes and locking them: compute again. */
export class ChunkPlanMoved extends Error {
  readonly versions: ReadonlyMap<number, number>;

  constructor(versions: ReadonlyMap<number, number>) {
    super("the chunk plan changed; stripes are computed again");
    this.versions = versions;
  }
}

export interface SyncTransaction {
  /** The direction has quarantined or deferred keys. */
  readonly hasQuarantine: boolean;
  /** For what is written and needs no answer. Before anything else is said to the target: `later.send()`. */
  readonly later: Later;
  /** Every read of the source rows looks at the source's tables in the same round trip. */
  readonly checksReads: boolean;
}

/** Catalogs moved, but no table changed: do it again. */
export class CatalogMoved extends Error {}

export interface SaveOptions {
  /** The last statement. */
  readonly save: string;
  /**
   * When the source's tables are looked at. `reads`: what is read is read by key, and checked there and then. `first`: nothing is
   * read. Else `last`, before the commit; in the other two cases the commit travels with what is written.
   */
  readonly looks: "reads" | "first" | "last";
  /** false: unless `save` says otherwise the commit is seen at once and does not wait for the disk. Before anybody is told of it: `flushCommits`. */
  readonly durable: boolean;
}

/**
 * Runs `work` as a sync: on the target, in one transaction, in this order (DESIGN §2.1, §2.2, §2.7): marker, direction
 * lock shared → chunk stripes exclusively, in order → in a later statement direction, epoch and chunk plan → only then
 * `work` reads the source. The session is READ COMMITTED, so each statement sees what was committed before it began.
 *
 * Throws STALE if direction or epoch moved on, ChunkPlanMoved if the stripes are outdated, SHAPE_CHANGED after DDL on a
 * mapped table; then nothing was changed.
 */
export async function syncTransaction<T>(
  context: SyncContext,
  scopes: readonly Scope[],
  work: (transaction: SyncTransaction) => Promise<T>,
): Promise<T> {
  const { result } = await syncAndSave(context, scopes, work, {
    save: "select 1",
    looks: "last",
    durable: true,
  });
  return result;
}

/**
 * `syncTransaction` whose last statement, `save`, travels with what was held back: the mirror's position. Returns the
 * rows of `save` beside the result. Unless it looks last, CatalogMoved may be thrown.
 */
export async function syncAndSave<T>(
  context: SyncContext,
  scopes: readonly Scope[],
  work: (transaction: SyncTransaction) => Promise<T>,
  options: SaveOptions,
): Promise<{ result: T; saved: TextRow[] }> {
  const { target } = context;
  const looksLast = options.looks === "last";
  try {
    const state = await beginAndLook(context, scopes, options);
    const checksReads = options.looks === "reads";
    const transaction = { ...state, checksReads, later: new Later(context) };
    const result = await work(transaction);
    const commit = looksLast ? lookAndCommit : commitAtOnce;
    return { result, saved: await commit(context, transaction.later, options.save) };
  } catch (error) {
    // A broken connection has rolled back by itself; the first error is the one that matters.
    await target.query("rollback").catch(() => {});
    if (!looksLast && sqlState(error) === GUARD_STATE && (await context.shapes.check()))
      throw new CatalogMoved("catalogs moved", { cause: error });
    throw error;
  }
}

async function beginAndLook(
  context: SyncContext,
  scopes: readonly Scope[],
  { looks, durable }: SaveOptions,
): ReturnType<typeof begin> {
  const [begun, looked] = await Promise.allSettled([
    begin(context, scopes, durable),
    looks === "first" ? context.shapes.check("source") : undefined,
  ]);
  if (begun.status === "rejected") throw begun.reason;
  if (looked.status === "rejected") throw looked.reason;
  return begun.value;
}

/** What was read is behind us, so the source may be looked at while the target writes. */
async function lookAndCommit(
  { shapes, target }: SyncContext,
  later: Later,
  save: string,
): Promise<TextRow[]> {
  const token = await shapes.statement("target");
  const [written, looked] = await Promise.allSettled([
    later.send([token, save]),
    shapes.check("source"),
  ]);
  if (written.status === "rejected") throw written.reason;
  if (looked.status === "rejected") throw looked.reason;
  const [answer, saved] = written.value.slice(-2);
  await shapes.judge("target", answer);
  await target.query("commit");
  return saved ?? [];
}

async function commitAtOnce(
  { shapes }: SyncContext,
  later: Later,
  save: string,
): Promise<TextRow[]> {
  const answers = await later.send([await shapes.guard(), save, "commit"]);
  return answers.at(-2) ?? [];
}

async function begin(
  context: SyncContext,
  scopes: readonly Scope[],
  durable: boolean,
): Promise<Pick<SyncTransaction, "hasQuarantine">> {
  const { compiled, epoch, target } = context;
  const direction = compiled.direction;
  const lock = directionLock(compiled.target);
  const readState = await prepareForBatch(
    target,
    `select s.direction, s.epoch::text, exists (select from crossfade.quarantine where direction = ${literal(direction)})::text,
       (select coalesce(json_agg(json_build_array(tbl, version)), '[]') from crossfade.chunk_plan where direction = ${literal(direction)})
     from crossfade.state s where s.side = ${literal(compiled.target)}`,
  );
  const enter = await prepareForBatch(
    target,
    `select set_config('crossfade.mirror', ${literal(`${direction}:${epoch}`)}, true),
       ${durable ? DURABLE_COMMIT : "set_config('synchronous_commit', 'off', true)"},
       pg_advisory_xact_lock_shared(${lock.classId}, ${lock.objectId})`,
  );
  const results = await runBatch(target, [
    "begin isolation level read committed",
    ...(context.feed === "wal" ? [markSql(`${direction}:${epoch}`)] : []),
    `execute ${enter}`,
    ...(await lockStatements(context, scopes)),
    // One statement after all locks: what it sees was committed by whoever held them before.
    `execute ${readState}`,
  ]);
  const [state] = results.at(-1) ?? [];
  if (state === undefined || state[0] !== direction || Number(state[1]) !== epoch) {
    throw new CrossfadeError(
      "STALE",
      `the ${compiled.target} side is at ${state?.join(":") ?? "no state"}, this sync is ${direction}:${epoch}`,
    );
  }
  const versions = new Map(JSON.parse(state[3] ?? "[]") as [number, number][]);
  if (scopes.some((scope) => (versions.get(scope.driver.number) ?? 0) !== scope.planVersion))
    throw new ChunkPlanMoved(versions);
  return { hasQuarantine: state[2] === "true" };
}

/** What the ledger or the source is told of after the commit must have reached the disk (DESIGN §2.4). */
const DURABLE_COMMIT =
  "case when current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then set_config('synchronous_commit', 'on', true) end";

/** Everything this session has committed on the target is on the disk when this returns, and where the target waits for standbys, on theirs. */
export async function flushCommits(target: pg.ClientBase): Promise<void> {
  // A transaction waits for the disk only if it has written something.
  await runPrepared(
    target,
    `select ${DURABLE_COMMIT}, pg_logical_emit_message(true, ${literal(MIRROR_MESSAGE)}, 'flush')`,
    [],
  );
}

/** The wal feed skips a transaction that begins with this message; it must come before the first row. */
function markSql(marker: string): string {
  return `select pg_logical_emit_message(true, ${literal(MIRROR_MESSAGE)}, ${literal(marker)})`;
}

/** One statement that takes all chunk locks in ascending order: every session locks in the same order. */
async function lockStatements(context: SyncContext, scopes: readonly Scope[]): Promise<string[]> {
  const locks = scopes.flatMap((scope) =>
    scope.stripes.map(
      (stripe) => chunkLock(context.compiled.direction, scope.driver.number, stripe).objectId,
    ),
  );
  if (locks.length === 0) return [];
  const classId = chunkLock(context.compiled.direction, 0, 0).classId;
  const name = await prepareForBatch(
    context.target,
    `select count(*) from (select pg_advisory_xact_lock(${classId}, o) from (select unnest($1::int[]) as o order by 1) s) l`,
  );
  return [`execute ${name}('{${[...new Set(locks)].join(",")}}')`];
}

export const ALL_STRIPES: readonly number[] = Array.from({ length: STRIPES }, (_, i) => i);
