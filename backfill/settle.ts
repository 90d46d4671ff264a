import type { Log } from "../config/lifecycle.ts";
import { stripesOf } from "../store/postgres/chunks.ts";
import { compareKeys, type Difference, differenceName, keysOf } from "../store/postgres/compare.ts";
import type { Key } from "../store/postgres/key-scope.ts";
import type { Driver, Mapping } from "../store/postgres/mapping.ts";
import { findBrokenReferences, type Reference } from "../store/postgres/broken-references.ts";
import { deleteOrphans, findOrphans, type OwnedTarget } from "../store/postgres/orphans.ts";
import { inTransaction } from "../store/postgres/session.ts";
import {
  ALL_STRIPES,
  ChunkPlanMoved,
  type Scope,
  type SyncContext,
  syncTransaction,
  type SyncTransaction,
} from "../store/postgres/sync.ts";
import { syncKeys } from "../store/postgres/sync-keys.ts";
import { awaitFence } from "./fence.ts";

/** How often a difference is looked at again after a fence before it counts; the pause doubles each time. */
const ROUNDS = 5;
const FIRST_PAUSE_MS = 20;
const KEYS_AT_ONCE = 500;
/** Orphans counted and shown at most; all of them are repaired. */
const ORPHAN_LIMIT = 10_000;

export interface SettleOptions {
  readonly repair: boolean;
  readonly wanted: (mapping: Mapping) => boolean;
  readonly log: Log;
  /** What is on its way is carried by this context's mirror; default: by that of what is compared. */
  readonly fences?: SyncContext;
}

export interface Settled {
  /** What still differs. */
  readonly remaining: readonly Difference[];
  /** Differences that were gone after a fence: changes on their way. */
  readonly inFlight: number;
  /** Rows that are written all the time, and that the mirror follows. */
  readonly hot: number;
  readonly repaired: number;
}

/**
 * Looks at differences again, each time after a fence has passed, so that what was in flight is gone; heals what stays
 * if asked to, and compares that again.
 */
export async function settleDifferences(
  context: SyncContext,
  driver: Driver,
  differences: readonly Difference[],
  options: SettleOptions,
): Promise<Settled> {
  if (differences.length === 0) return { remaining: [], inFlight: 0, hot: 0, repaired: 0 };
  const { stayed, hot } = await lookAgain(context, driver, differences, options);
  const inFlight = Math.max(0, differences.length - stayed.length - hot);
  if (!options.repair || stayed.length === 0)
    return { remaining: stayed, inFlight, hot, repaired: 0 };
  await repairKeys(context, driver, keysOf(stayed), options.log);
  const after = await lookAgain(context, driver, stayed, options);
  return {
    remaining: after.stayed,
    inFlight,
    hot: hot + after.hot,
    repaired: Math.max(0, stayed.length - after.stayed.length - after.hot),
  };
}

/**
 * What still differs, and how many rows only differ because they are written all the time: both what is expected of them and
 * what is there moved between the last two looks, so the mirror follows them (a row that is wrong stays as it is).
 */
async function lookAgain(
  context: SyncContext,
  driver: Driver,
  differences: readonly Difference[],
  options: SettleOptions,
): Promise<{ readonly stayed: readonly Difference[]; readonly hot: number }> {
  let open = differences;
  let hot = new Set<string>();
  for (let round = 0; round < ROUNDS && open.length > 0; round += 1) {
    if (round > 0) await new Promise((resolve) => setTimeout(resolve, FIRST_PAUSE_MS * 2 ** round));
    await awaitFence(options.fences ?? context);
    const before = new Map(open.map((difference) => [differenceName(difference), difference]));
    const found: Difference[] = [];
    for (const keys of batches(keysOf(open)))
      found.push(...(await compareKeys(context, driver, keys, options.wanted)).differences);
    open = found.filter((difference) => before.has(differenceName(difference)));
    hot = new Set(open.map(differenceName).filter((name, i) => follows(before.get(name), open[i])));
  }
  return {
    stayed: open.filter((difference) => !hot.has(differenceName(difference))),
    hot: open.filter((difference) => hot.has(differenceName(difference))).length,
  };
}

function follows(before: Difference | undefined, now: Difference | undefined): boolean {
  if (before === undefined || now?.kind !== "different" || before.kind !== "different")
    return false;
  return now.expected !== null && now.expected !== before.expected && now.found !== before.found;
}

/** Heals keys through the one sync, holding their stripes. Refused rows go to quarantine. */
export async function repairKeys(
  context: SyncContext,
  driver: Driver,
  keys: readonly Key[],
  log: Log,
): Promise<void> {
  for (const batch of batches(keys)) {
    await withStripes(
      context,
      async (versions) => [
        {
          driver,
          planVersion: versions.get(driver.number) ?? 0,
          stripes: await stripesOf(
            context.compiled,
            driver,
            context.source,
            batch,
            versions.get(driver.number) ?? 0,
          ),
        },
      ],
      async (transaction) => {
        const refused = await syncKeys(context, transaction, driver, batch, {
          careful: true,
          defer: false,
          deleteFirst: false,
        });
        for (const refusal of refused)
          log.warn(
            { mapping: refusal.mapping, key: refusal.key, reason: refusal.reason },
            "repair: a row is quarantined",
          );
      },
    );
  }
}

/** Runs `work` with its stripes locked, computing them again when the chunk plan moved. */
async function withStripes<T>(
  context: SyncContext,
  scopesOf: (versions: ReadonlyMap<number, number>) => Promise<readonly Scope[]> | readonly Scope[],
  work: (transaction: SyncTransaction) => Promise<T>,
): Promise<T> {
  let versions: ReadonlyMap<number, number> = new Map();
  for (;;) {
    try {
      return await syncTransaction(context, await scopesOf(versions), work);
    } catch (error) {
      if (!(error instanceof ChunkPlanMoved)) throw error;
      versions = error.versions;
    }
  }
}

export interface SettledOrphans {
  readonly found: number;
  readonly remaining: readonly (readonly string[])[];
  readonly repaired: number;
}

/** Rows no source key owns: found, found again after a fence, deleted if asked to. */
export async function settleOrphans(
  context: SyncContext,
  target: OwnedTarget,
  options: Pick<SettleOptions, "repair" | "log" | "fences">,
): Promise<SettledOrphans> {
  const find = () =>
    inTransaction(context.target, () => findOrphans(context, target, ORPHAN_LIMIT));
  const first = await find();
  const found = first.length;
  const open = await stillFound(options.fences ?? context, first, find);
  if (!options.repair || open.length === 0) return { found, remaining: open, repaired: 0 };
  const repaired = await withStripes(
    context,
    (versions) =>
      [...new Set(target.makers.map((maker) => maker.driver))].map((driver) => ({
        driver,
        stripes: ALL_STRIPES,
        planVersion: versions.get(driver.number) ?? 0,
      })),
    () => deleteOrphans(context, target),
  );
  options.log.info(
    { table: target.name, rows: repaired },
    "repair: rows that no source row owns are deleted",
  );
  return { found, remaining: await find(), repaired };
}

/** Rows whose foreign key points at nothing, found again after fences. Nothing repairs them: a row is missing elsewhere. */
export async function settleReferences(
  context: SyncContext,
  reference: Reference,
): Promise<SettledOrphans> {
  const find = () => findBrokenReferences(context, reference, ORPHAN_LIMIT);
  const first = await find();
  return { found: first.length, remaining: await stillFound(context, first, find), repaired: 0 };
}

/** What is found again and again, each time after a fence has passed. */
async function stillFound(
  context: SyncContext,
  first: readonly string[][],
  find: () => Promise<string[][]>,
): Promise<string[][]> {
  let open = [...first];
  for (let round = 0; round < ROUNDS && open.length > 0; round += 1) {
    if (round > 0) await new Promise((resolve) => setTimeout(resolve, FIRST_PAUSE_MS * 2 ** round));
    await awaitFence(context);
    const known = new Set(open.map((key) => JSON.stringify(key)));
    open = (await find()).filter((key) => known.has(JSON.stringify(key)));
  }
  return open;
}

function batches<T>(items: readonly T[]): T[][] {
  const result: T[][] = [];
  for (let at = 0; at < items.length; at += KEYS_AT_ONCE)
    result.push(items.slice(at, at + KEYS_AT_ONCE));
  return result;
}
