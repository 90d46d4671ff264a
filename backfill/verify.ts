import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { CheckPlan, Plan } from "../config/plan-types.ts";
import type { Direction } from "../config/words.ts";
import type { ControlStore } from "../store/control/open.ts";
import {
  finishVerifyRun,
  planVerifyTable,
  recordRoundTrip,
  recordVerifyChunk,
  startVerifyRun,
  type VerifyRun,
} from "../store/control/verify-runs.ts";
import { recordRowCounts } from "../store/control/verify-history.ts";
import { type Chunk, chunkRanges } from "../store/postgres/chunks.ts";
import { compareChunk, type Difference, differenceName } from "../store/postgres/compare.ts";
import { countRows } from "../store/postgres/count-rows.ts";
import type { Engine } from "../store/postgres/engine.ts";
import type { CompiledDirection, Driver, Mapping } from "../store/postgres/mapping.ts";
import { type OwnedTarget, ownedTargets } from "../store/postgres/orphans.ts";
import { type Reference, referencesOf } from "../store/postgres/broken-references.ts";
import { listQuarantine } from "../store/postgres/quarantine.ts";
import { relation } from "../store/postgres/quote.ts";
import { runPrepared } from "../store/postgres/statement.ts";
import { refreshStatistics } from "../store/postgres/statistics.ts";
import type { SyncContext } from "../store/postgres/sync.ts";
import { runCheck } from "./checks.ts";
import { proveRoundTrip } from "./round-trip.ts";
import { VerifyCrew } from "./verify-crew.ts";
import { shownValue, verifyExamples } from "./verify-examples.ts";
import { type Settled, settleDifferences, settleOrphans, settleReferences } from "./settle.ts";

/** Rows compared at a time; larger than a chunk of the copy, because nothing is locked. */
const ROWS_PER_CHUNK = 20_000;

export interface VerifyOptions {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly log: Log;
  readonly direction: Direction;
  readonly epoch: number;
  readonly by: string;
  readonly repair: boolean;
  /** Only these tables (of the target side, or driving tables of the source side). */
  readonly tables?: readonly string[] | undefined;
  /** SQL over the rows of the driving tables: only those. */
  readonly where?: string | undefined;
  /** Share of the chunks to compare, chosen at random; undefined: all. */
  readonly sample?: number | undefined;
  /** For comparing that nobody waits for: called after each chunk with the ms it took, to rest. */
  readonly rest?: ((ms: number) => Promise<void>) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Compares every mapped row of the active direction, chunk by chunk, and then looks for rows that no source key owns.
 * Differences are looked at again after a fence until they are gone or stay; with `repair`, those that stay are healed
 * through sync and compared once more. The run's counters and examples are in the control store.
 */
export async function runVerify(options: VerifyOptions): Promise<VerifyRun> {
  const run = await verifyUnlessBusy(options);
  if (run === undefined) throw new Error("a run that yields to nobody was not begun");
  return run;
}

/** The same for a run with `rest`, which nobody asked for: undefined, and nothing done, while another one runs. */
export async function verifyUnlessBusy(options: VerifyOptions): Promise<VerifyRun | undefined> {
  const { plan, store, direction, epoch } = options;
  const crew = await VerifyCrew.open({
    plan,
    direction,
    epoch,
    log: options.log,
    statementTimeoutMs: 3_600_000,
    // What nobody waits for shall not be felt.
    size: options.rest === undefined ? plan.backfill.workers : 1,
  });
  const engine = crew.first;
  try {
    const wanted = wantedMappings(engine.context.compiled, options.tables);
    const drivers = engine.context.compiled.drivers.filter((driver) =>
      mappingsOf(driver).some(wanted),
    );
    if (drivers.length === 0) {
      throw new CrossfadeError(
        "USAGE",
        `no mapping of ${direction} makes or reads ${options.tables?.join(", ") ?? "any table"}`,
      );
    }
    if (options.where !== undefined) await refuseBadCondition(engine, drivers, options.where);
    const run = await startVerifyRun(store, {
      direction,
      by: options.by,
      repair: options.repair,
      tables: drivers.map((driver) => driver.name),
      allTables: isComplete(options),
      yields: options.rest !== undefined,
    });
    if (run === undefined) return undefined;
    const finished = await finishVerifyRun(
      store,
      run,
      await compareAll(options, crew, run, drivers, wanted),
    );
    if (direction === "forward" || !finished.allTables || finished.state !== "clean")
      return finished;
    return await recordRoundTrip(store, run, await proveRoundTrip(options, engine.context));
  } finally {
    await crew.close();
  }
}

/** A condition comes from whoever may ask for a comparison: one expression that every table understands, no second statement. */
async function refuseBadCondition(
  { context }: Engine,
  drivers: readonly Driver[],
  where: string,
): Promise<void> {
  for (const driver of drivers) {
    const table = relation(context.compiled.sourceSchema, driver.name);
    try {
      // Prepared: the server takes no more than one statement that way.
      await runPrepared(
        context.source,
        `select 1 from ${table} as cf_q where (${where}\n) limit 0`,
        [],
      );
    } catch (error) {
      throw new CrossfadeError("USAGE", `--where on ${driver.name}: ${messageOf(error)}`, {
        hint: "Give SQL that is true or false for a row of that table; --table names tables that have its columns.",
        cause: error,
      });
    }
  }
}

/** Compares everything; returns why it did not get to the end, if it did not. */
async function compareAll(
  options: VerifyOptions,
  crew: VerifyCrew,
  run: number,
  drivers: readonly Driver[],
  wanted: (mapping: Mapping) => boolean,
): Promise<string | undefined> {
  const { context } = crew.first;
  try {
    await prepareTarget(options, context);
    const accepted = await acceptedKeys(context);
    for (const driver of drivers) {
      const chunks = await chunksToCompare(options, context, driver);
      await planVerifyTable(options.store, run, driver.name, chunks.length);
      await crew.each(chunks, async (session, chunk) => {
        options.signal?.throwIfAborted();
        const started = performance.now();
        await verifyChunk(options, session, run, { driver, chunk, wanted, accepted });
        await options.rest?.(performance.now() - started);
      });
    }
    // Rows outside of what was compared would look like rows that nobody owns.
    if (options.where !== undefined || options.sample !== undefined) return undefined;
    for (const [index, target] of ownedTargets(context.compiled).entries()) {
      if (target.makers.every(({ mapping }) => !wanted(mapping))) continue;
      await verifyOrphans(options, context, run, target, index);
    }
    for (const [index, reference] of referencesOf(context.compiled, wanted).entries()) {
      await verifyReference(options, context, run, reference, index);
    }
    if (isComplete(options)) {
      for (const [index, check] of options.plan.checks.entries())
        await verifyCheck(options, context, run, check, index);
      // Reading every table once more is for who waits for an answer, and not for a comparison that rests in between.
      if (options.rest === undefined) await recordCounts(options, context, run);
    }
    await context.shapes.check();
    return undefined;
  } catch (error) {
    options.log.warn({ err: error }, `verify: ${messageOf(error)}`);
    return messageOf(error);
  }
}

/** For the report: a count says nothing that a comparison has not said better, so nothing fails with it. */
async function recordCounts(
  { store, direction, log }: VerifyOptions,
  context: SyncContext,
  run: number,
): Promise<void> {
  try {
    await recordRowCounts(store, run, await countRows(context, direction));
  } catch (error) {
    log.warn({ err: error }, `verify: rows were not counted: ${messageOf(error)}`);
  }
}

/** Only a run over everything counts for a gate. */
function isComplete({ tables, where, sample }: VerifyOptions): boolean {
  return tables === undefined && where === undefined && sample === undefined;
}

/** All chunks, or a random share of them, at least one. */
async function chunksToCompare(
  { where, sample }: VerifyOptions,
  context: SyncContext,
  driver: Driver,
): Promise<Chunk[]> {
  const all = await chunkRanges(context.compiled, driver, context.source, ROWS_PER_CHUNK);
  const drawn = sample === undefined ? all : draw(all, Math.ceil(all.length * sample));
  return where === undefined ? drawn : drawn.map((chunk) => ({ ...chunk, where }));
}

function draw(chunks: readonly Chunk[], wanted: number): Chunk[] {
  return chunks
    .map((chunk) => ({ chunk, order: Math.random() }))
    .toSorted((a, b) => a.order - b.order)
    .slice(0, Math.max(1, wanted))
    .map(({ chunk }) => chunk)
    .toSorted((a, b) => a.n - b.n);
}

/** Verify is the first to read what was copied, and the last before the follower's app does. */
async function prepareTarget({ log }: VerifyOptions, context: SyncContext): Promise<void> {
  try {
    await refreshStatistics(context.target, context.compiled);
  } catch (error) {
    // Somebody's VACUUM is in the way: comparing is slower without, not wrong.
    log.warn({ err: error }, `verify: no statistics were collected: ${messageOf(error)}`);
  }
}

async function verifyChunk(
  options: VerifyOptions,
  context: SyncContext,
  run: number,
  { driver, chunk, wanted, accepted }: ChunkToCompare,
): Promise<void> {
  const started = performance.now();
  const found = await compareChunk(context, driver, chunk, wanted);
  await context.shapes.check();
  const open = found.differences.filter((difference) => !accepted.has(differenceName(difference)));
  const settled = await settleDifferences(context, driver, open, {
    repair: options.repair,
    wanted,
    log: options.log,
  });
  await record(options.store, run, {
    table: driver.name,
    n: chunk.n,
    rows: found.compared,
    ...counts(settled),
    examples: await verifyExamples(context, driver, settled.remaining, options.plan.verify),
    ms: performance.now() - started,
  });
}

/** Orphans belong to no chunk: they are recorded as chunk -1, -2, … of the table that makes the target. */
async function verifyOrphans(
  options: VerifyOptions,
  context: SyncContext,
  run: number,
  target: OwnedTarget,
  index: number,
): Promise<void> {
  const { redact, examples } = options.plan.verify;
  const started = performance.now();
  const { found, remaining, repaired } = await settleOrphans(context, target, {
    repair: options.repair,
    log: options.log,
  });
  await record(options.store, run, {
    table: target.makers[0]?.driver.name ?? target.name,
    n: -1 - index,
    rows: 0,
    missing: 0,
    extra: remaining.length,
    different: 0,
    inFlight: found - remaining.length - repaired,
    hot: 0,
    repaired,
    examples: remaining.slice(0, examples).map((key) => ({
      kind: "extra" as const,
      key: {
        table: target.name,
        ...Object.fromEntries(
          target.key.map((name, i) => [
            name,
            shownValue({ redact }, target.name, name, key[i] ?? null),
          ]),
        ),
      },
    })),
    ms: performance.now() - started,
  });
}

/** Foreign keys are chunk -1001, -1002, …: a reference that points at nothing is a missing row. */
async function verifyReference(
  { store, plan }: VerifyOptions,
  context: SyncContext,
  run: number,
  { table, key }: Reference,
  index: number,
): Promise<void> {
  const { redact, examples } = plan.verify;
  const started = performance.now();
  const { found, remaining } = await settleReferences(context, { table, key });
  await record(store, run, {
    table: table.name,
    n: -1001 - index,
    rows: 0,
    missing: remaining.length,
    extra: 0,
    different: 0,
    inFlight: found - remaining.length,
    hot: 0,
    repaired: 0,
    examples: remaining.slice(0, examples).map((values) => ({
      kind: "missing" as const,
      key: {
        foreign_key: key.name,
        table: table.name,
        ...Object.fromEntries(
          table.key.map((name, i) => [
            name,
            shownValue({ redact }, table.name, name, values[i] ?? null),
          ]),
        ),
      },
    })),
    ms: performance.now() - started,
  });
}

/** The plan's own checks are chunk -2001, -2002, …: each row they find counts as different. */
async function verifyCheck(
  { store, plan }: VerifyOptions,
  context: SyncContext,
  run: number,
  check: CheckPlan,
  index: number,
): Promise<void> {
  const started = performance.now();
  const found = await runCheck(context, plan, check);
  const { redact } = plan.verify;
  await record(store, run, {
    table: `check ${check.name}`,
    n: -2001 - index,
    rows: 0,
    missing: 0,
    extra: 0,
    different: found.length,
    inFlight: 0,
    hot: 0,
    repaired: 0,
    examples: found.slice(0, plan.verify.examples).map((row) => ({
      kind: "different" as const,
      // A row of a check has columns of its own making: with anything to redact it is not shown at all.
      key: {
        on: check.on,
        row: redact.length > 0 ? "(redacted)" : shownValue({ redact }, "", "", row),
      },
    })),
    ms: performance.now() - started,
  });
}

function counts(settled: Settled) {
  const of = (kind: Difference["kind"]) =>
    settled.remaining.filter((difference) => difference.kind === kind).length;
  return {
    missing: of("missing"),
    extra: of("extra"),
    different: of("different"),
    inFlight: settled.inFlight,
    hot: settled.hot,
    repaired: settled.repaired,
  };
}

/** A run that was taken over by a newer one ends here: what it would record is of no use to anybody. */
async function record(...args: Parameters<typeof recordVerifyChunk>): Promise<void> {
  if (!(await recordVerifyChunk(...args)))
    throw new CrossfadeError("STALE", "another comparison began and took the place of this one");
}

interface ChunkToCompare {
  readonly driver: Driver;
  readonly chunk: Chunk;
  readonly wanted: (mapping: Mapping) => boolean;
  readonly accepted: ReadonlySet<string>;
}

function mappingsOf(driver: Driver): Mapping[] {
  return driver.readers.flatMap((reader) => reader.mappings);
}

function wantedMappings(
  compiled: CompiledDirection,
  tables: readonly string[] | undefined,
): (mapping: Mapping) => boolean {
  if (tables === undefined) return () => true;
  const driving = new Set(
    compiled.drivers.filter((driver) => tables.includes(driver.name)).flatMap(mappingsOf),
  );
  return (mapping) => tables.includes(mapping.target.name) || driving.has(mapping);
}

/** Keys whose loss a named person accepted: they are known to differ. */
async function acceptedKeys(context: SyncContext): Promise<Set<string>> {
  const rows = await listQuarantine(context.target, context.compiled.direction);
  return new Set(
    rows
      .filter((row) => row.state === "accepted")
      .map((row) => row.mapping + JSON.stringify(row.key)),
  );
}
