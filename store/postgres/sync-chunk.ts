import { stripeOfChunk } from "./chunks.ts";
import type { Copied } from "./copy-rows.ts";
import { copyDirectly } from "./direct-copy.ts";
import { type Key, keysInRange, mapperOf } from "./key-scope.ts";
import { type Driver, type Mapping, mayRepeat, type Reader, takenByKeys } from "./mapping.ts";
import type { Refusal } from "./quarantine.ts";
import { recordRefused } from "./record-refused.ts";
import { stageChunk } from "./stage.ts";
import { sqlState } from "./session.ts";
import { run, runBatch } from "./statement.ts";
import { isRefusal, syncKeys } from "./sync-keys.ts";
import type { CopyPace } from "./stretch.ts";
import { type SyncContext, type SyncTransaction, syncTransaction } from "./sync.ts";
import {
  type KeyRange,
  plainInsertSql,
  probeSql,
  rejectedSelect,
  repeatedSelect,
  upsertSql,
} from "./sync-sql.ts";
import { runOnceInSync } from "./travel.ts";

/** Keys a chunk that is synced by keys takes at a time. */
const KEYS_AT_ONCE = 500;
/** Enough to see that a chunk was copied before; the mirror may have brought others. */
const PROBED_ROWS = 100;
const UNIQUE_VIOLATION = "23505";

export interface ChunkScope extends KeyRange {
  /** The chunk, or the first of `count` neighbours whose ranges together are this one. */
  readonly n: number;
  readonly count?: number;
  /** Version of the chunk plan this chunk belongs to. */
  readonly version: number;
}

export interface ChunkResult {
  /** Source rows the chunk held. */
  readonly rows: number;
  readonly refused: number;
  /** How much of it was copied directly, and how long that rested: only there can it be told to. */
  readonly direct: Pick<Copied, "bytes" | "restedMs">;
}

const NOT_DIRECT = { bytes: 0, restedMs: 0 } as const;

/**
 * Syncs one chunk: everything `driver` makes from the rows of the range, in one transaction that holds the chunk's
 * stripe. A refused row is isolated and quarantined, and the chunk goes on without it. `pace`: how to stretch it, where it can be.
 */
export async function syncChunk(
  context: SyncContext,
  driver: Driver,
  chunk: ChunkScope,
  pace?: CopyPace,
): Promise<ChunkResult> {
  const scope = { driver, stripes: stripesOfScope(chunk), planVersion: chunk.version };
  try {
    return await syncTransaction(context, [scope], (transaction) =>
      takenByKeys(driver)
        ? syncChunkByKeys(context, transaction, driver, chunk, false)
        : mergeChunk(context, driver, chunk, pace),
    );
  } catch (error) {
    if (!isRefusal(error) && !(error instanceof RepeatedKey)) throw error;
    return syncTransaction(context, [scope], (transaction) =>
      syncChunkByKeys(context, transaction, driver, chunk, true),
    );
  }
}

function stripesOfScope({ n, count = 1 }: ChunkScope): number[] {
  return Array.from({ length: count }, (_, i) => stripeOfChunk(n + i));
}

async function mergeChunk(
  context: SyncContext,
  driver: Driver,
  chunk: ChunkScope,
  pace: CopyPace | undefined,
): Promise<ChunkResult> {
  let rows = 0;
  let refused = 0;
  let direct: ChunkResult["direct"] = NOT_DIRECT;
  for (const reader of driver.readers) {
    const copied = await copyDirectly(context, driver, reader, chunk, pace);
    if (copied !== undefined) {
      rows = Math.max(rows, copied.rows);
      direct = {
        bytes: direct.bytes + copied.bytes,
        restedMs: direct.restedMs + copied.restedMs,
      };
      continue;
    }
    const staged = await stageChunk(context, driver, reader, chunk);
    const refusals: Refusal[] = [];
    for (const mapping of reader.mappings) {
      refusals.push(...(await rejectedInChunk(context, driver, mapping, staged.raw)));
      await putRows(context, mapping, await staged.mapped(mapping));
    }
    await recordRefused(context, driver, refusals);
    refused += refusals.length;
    if (mayRepeat(driver, reader)) await refuseRepeated(context, driver, staged.raw);
    rows = Math.max(rows, await staged.rows());
  }
  return { rows, refused, direct };
}

/**
 * Where none of a few rows of the chunk is on the target yet, probably none is, and an insert without conflict check does it
 * in half the time. The stripe keeps mirrors out, and a row that is there all the same breaks the mapping's unique key:
 * then this one statement is undone and the rows are merged. So the guess is never taken for a proof.
 */
async function putRows(context: SyncContext, mapping: Mapping, mapped: string): Promise<void> {
  const { target } = context;
  if (mapping.own.kind === "none" || (await someExist(context, mapping, mapped))) {
    await run(target, upsertSql(mapping, mapped));
    return;
  }
  try {
    await runBatch(target, [
      "savepoint cf_insert",
      plainInsertSql(mapping, mapped),
      "release savepoint cf_insert",
    ]);
  } catch (error) {
    if (sqlState(error) !== UNIQUE_VIOLATION) throw error;
    await run(target, "rollback to savepoint cf_insert");
    await run(target, upsertSql(mapping, mapped));
  }
}

async function someExist(context: SyncContext, mapping: Mapping, mapped: string): Promise<boolean> {
  const [row] = await run(context.target, probeSql(mapping, mapped, PROBED_ROWS));
  return row?.[0] === "true";
}

/** Several rows have one key: the chunk is synced again by keys, which tells which. */
class RepeatedKey extends Error {}

async function refuseRepeated(context: SyncContext, driver: Driver, raw: string): Promise<void> {
  const sql = `${repeatedSelect(driver, raw)} limit 1`;
  if ((await runOnceInSync(context, mapperOf(context), sql)).length > 0)
    throw new RepeatedKey(`${driver.name}: more than one row for a key`);
}

async function rejectedInChunk(
  context: SyncContext,
  driver: Driver,
  mapping: Reader["mappings"][number],
  raw: string,
): Promise<Refusal[]> {
  const sql = rejectedSelect(driver, mapping, raw);
  if (sql === undefined) return [];
  return (await runOnceInSync(context, mapperOf(context), sql)).map((row) => ({
    mapping: mapping.path,
    sourceTable: driver.name,
    key: row.slice(0, -1) as string[],
    reason: row.at(-1) ?? "",
    sqlstate: undefined,
    state: "quarantined" as const,
  }));
}

async function syncChunkByKeys(
  context: SyncContext,
  transaction: SyncTransaction,
  driver: Driver,
  chunk: ChunkScope,
  careful: boolean,
): Promise<ChunkResult> {
  const all = takenByKeys(driver)
    ? await keysInRange(context, driver, chunk)
    : await stagedKeys(context, driver, chunk);
  let refused = 0;
  for (let at = 0; at < all.length; at += KEYS_AT_ONCE) {
    const keys = all.slice(at, at + KEYS_AT_ONCE);
    const options = { careful, defer: false };
    refused += (await syncKeys(context, transaction, driver, keys, options)).length;
  }
  return { rows: all.length, refused, direct: NOT_DIRECT };
}

async function stagedKeys(context: SyncContext, driver: Driver, chunk: ChunkScope): Promise<Key[]> {
  const keys = new Map<string, Key>();
  for (const reader of driver.readers) {
    const staged = await stageChunk(context, driver, reader, chunk);
    for (const key of await staged.keys()) keys.set(JSON.stringify(key), key);
  }
  return [...keys.values()];
}
