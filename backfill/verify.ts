import { randomBytes } from "node:crypto";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Direction } from "../config/words.ts";
import type { ControlStore } from "../store/control/open.ts";
import {
  finishVerifyRun,
  recordVerifyChunk,
  startVerifyRun,
  type VerifyExample,
  type VerifyRun,
} from "../store/control/verify-runs.ts";
import { type Chunk, chunkRanges } from "../store/postgres/chunks.ts";
import { compareChunk, type Difference } from "../store/postgres/compare.ts";
import { type Engine, openEngine } from "../store/postgres/engine.ts";
import type { CompiledDirection, Driver, Mapping } from "../store/postgres/mapping.ts";
import { type OwnedTarget, ownedTargets } from "../store/postgres/orphans.ts";
import { type Reference, referencesOf } from "../store/postgres/broken-references.ts";
import { listQuarantine } from "../store/postgres/quarantine.ts";
import { refreshStatistics } from "../store/postgres/statistics.ts";
import type { SyncContext } from "../store/postgres/sync.ts";
import { type Settled, settleDifferences, settleOrphans, settleReferences } from "./settle.ts";

/** Rows compared at a time; larger than a chunk of the copy, because nothing is locked. */
const ROWS_PER_CHUNK = 20_000;
const EXAMPLES = 10;

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
  readonly signal?: AbortSignal | undefined;
}

/**
 * Compares every mapped row of the active direction, chunk by chunk, and then looks for rows that no source key owns.
 * Differences are looked at again after a fence until they are gone or stay; with `repair`, those that stay are healed
 * through sync and compared once more. The run's counters and examples are in the control store.
 */
export async function runVerify(options: VerifyOptions): Promise<VerifyRun> {
  const { plan, store, direction, epoch } = options;
  const engine = await openEngine({
    plan,
    direction,
    epoch,
    role: "verify",
    instance: randomBytes(3).toString("hex"),
    statementTimeoutMs: 3_600_000,
  });
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
    const run = await startVerifyRun(store, {
      direction,
      by: options.by,
      repair: options.repair,
      tables: drivers.map((driver) => driver.name),
      allTables: options.tables === undefined,
    });
    return await finishVerifyRun(
      store,
      run,
      await compareAll(options, engine, run, drivers, wanted),
    );
  } finally {
    await engine.close();
  }
}

/** Compares everything; returns why it did not get to the end, if it did not. */
async function compareAll(
  options: VerifyOptions,
  engine: Engine,
  run: number,
  drivers: readonly Driver[],
  wanted: (mapping: Mapping) => boolean,
): Promise<string | undefined> {
  const { context } = engine;
  try {
    await prepareTarget(options, context);
    const accepted = await acceptedKeys(context);
    for (const driver of drivers) {
      for (const chunk of await chunkRanges(
        context.compiled,
        driver,
        context.source,
        ROWS_PER_CHUNK,
      )) {
        options.signal?.throwIfAborted();
        await verifyChunk(
          options,
          context,
          run,
          driver,
          chunk,
          (mapping) => wanted(mapping),
          accepted,
        );
      }
    }
    for (const [index, target] of ownedTargets(context.compiled).entries()) {
      if (target.makers.every(({ mapping }) => !wanted(mapping))) continue;
      await verifyOrphans(options, context, run, target, index);
    }
    for (const [index, reference] of referencesOf(context.compiled, wanted).entries()) {
      await verifyReference(options, context, run, reference, index);
    }
    await context.shapes.check();
    return undefined;
  } catch (error) {
    options.log.warn({ err: error }, `verify: ${messageOf(error)}`);
    return messageOf(error);
  }
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
  driver: Driver,
  chunk: Chunk,
  wanted: (mapping: Mapping) => boolean,
  accepted: ReadonlySet<string>,
): Promise<void> {
  const started = performance.now();
  const found = await compareChunk(context, driver, chunk, wanted);
  await context.shapes.check();
  const open = found.differences.filter(
    (difference) => !accepted.has(difference.mapping + JSON.stringify(difference.key)),
  );
  const settled = await settleDifferences(context, driver, open, {
    repair: options.repair,
    wanted,
    log: options.log,
  });
  await recordVerifyChunk(options.store, run, {
    table: driver.name,
    n: chunk.n,
    rows: found.compared,
    ...counts(settled),
    examples: settled.remaining.slice(0, EXAMPLES).map((difference) => example(driver, difference)),
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
  const started = performance.now();
  const { found, remaining, repaired } = await settleOrphans(context, target, {
    repair: options.repair,
    log: options.log,
  });
  await recordVerifyChunk(options.store, run, {
    table: target.makers[0]?.driver.name ?? target.name,
    n: -1 - index,
    rows: 0,
    missing: 0,
    extra: remaining.length,
    different: 0,
    inFlight: found - remaining.length - repaired,
    repaired,
    examples: remaining.slice(0, EXAMPLES).map((key) => ({
      kind: "extra" as const,
      key: {
        table: target.name,
        ...Object.fromEntries(target.key.map((name, i) => [name, key[i] ?? null])),
      },
    })),
    ms: performance.now() - started,
  });
}

/** Foreign keys are chunk -1001, -1002, …: a reference that points at nothing is a missing row. */
async function verifyReference(
  { store }: VerifyOptions,
  context: SyncContext,
  run: number,
  { table, key }: Reference,
  index: number,
): Promise<void> {
  const started = performance.now();
  const { found, remaining } = await settleReferences(context, { table, key });
  await recordVerifyChunk(store, run, {
    table: table.name,
    n: -1001 - index,
    rows: 0,
    missing: remaining.length,
    extra: 0,
    different: 0,
    inFlight: found - remaining.length,
    repaired: 0,
    examples: remaining.slice(0, EXAMPLES).map((values) => ({
      kind: "missing" as const,
      key: {
        foreign_key: key.name,
        table: table.name,
        ...Object.fromEntries(table.key.map((name, i) => [name, values[i] ?? null])),
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
    repaired: settled.repaired,
  };
}

function example(driver: Driver, difference: Difference): VerifyExample {
  const key = Object.fromEntries(
    driver.key.map((column, i) => [column.name, difference.key[i] ?? null]),
  );
  return { kind: difference.kind, key: { mapping: difference.mapping, ...key } };
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
