import { messageOf, CrossfadeError } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import {
  type ClaimedChunk,
  claimChunks,
  failChunk,
  finishChunks,
  releaseChunk,
  renewLease,
} from "../store/control/chunk-ledger.ts";
import type { ControlStore } from "../store/control/open.ts";
import type { Engine } from "../store/postgres/engine.ts";
import type { CopyPace } from "../store/postgres/stretch.ts";
import { ChunkPlanMoved } from "../store/postgres/sync.ts";
import { type ChunkResult, syncChunk } from "../store/postgres/sync-chunk.ts";

/** A worker that died gives its chunk back after this; one that lives renews it well before. */
const LEASE_MS = 4_000;

/** What came of asking for a chunk. */
export type ChunkOutcome =
  | { readonly kind: "none" }
  | {
      readonly kind: "copied";
      readonly table: string;
      /** Neighbours that were copied together. */
      readonly chunks: number;
      readonly result: ChunkResult;
      readonly ms: number;
    }
  | { readonly kind: "outdated" };

/** How the next sync of a table is to be. */
export interface Portion {
  /** How many neighbouring chunks it takes together, at most. */
  most(table: string): number;
  /** How it is stretched; undefined: not at all. */
  pace(table: string): CopyPace | undefined;
}

const ONE_CHUNK: Portion = { most: () => 1, pace: () => undefined };

/**
 * Claims the next chunk (and neighbours, as `portion` says) and copies it: one sync in one transaction, then the ledger. Dying in between costs a
 * repetition. Errors of the chunk itself are noted in the ledger and the worker goes on; STALE is thrown.
 */
export async function copyNextChunk(
  store: ControlStore,
  engine: Engine,
  worker: string,
  log: Log,
  portion: Portion = ONE_CHUNK,
): Promise<ChunkOutcome> {
  const { compiled } = engine.context;
  const { direction } = compiled;
  const most = (table: string) => portion.most(table);
  const chunks = await claimChunks(store, { direction, worker, leaseMs: LEASE_MS, most });
  const [first] = chunks;
  if (first === undefined) return { kind: "none" };
  const driver = compiled.drivers.find((candidate) => candidate.name === first.table);
  if (driver === undefined) {
    for (const chunk of chunks)
      await failChunk(store, chunk, `the plan has no mapping from ${chunk.table} any more`, 1);
    return { kind: "outdated" };
  }
  const lease = setInterval(() => void renew(store, chunks, log), LEASE_MS / 3);
  const started = performance.now();
  try {
    const scope = {
      n: first.n,
      count: chunks.length,
      lo: first.lo ?? null,
      hi: chunks.at(-1)?.hi ?? null,
      version: first.planVersion,
    };
    const result = await syncChunk(engine.context, driver, scope, portion.pace(first.table));
    const ms = performance.now() - started;
    await finishChunks(store, chunks, { rows: result.rows, ms });
    return { kind: "copied", table: first.table, chunks: chunks.length, result, ms };
  } catch (error) {
    return await giveBack(store, chunks, error, log);
  } finally {
    clearInterval(lease);
  }
}

async function renew(
  store: ControlStore,
  chunks: readonly ClaimedChunk[],
  log: Log,
): Promise<void> {
  try {
    await Promise.all(chunks.map((chunk) => renewLease(store, chunk, LEASE_MS)));
  } catch (error) {
    // A lease that runs out means that the chunk may be copied twice, which is harmless.
    log.info({ err: error }, "backfill: the lease of a chunk could not be renewed");
  }
}

async function giveBack(
  store: ControlStore,
  chunks: readonly ClaimedChunk[],
  error: unknown,
  log: Log,
): Promise<ChunkOutcome> {
  if (error instanceof ChunkPlanMoved) {
    for (const chunk of chunks) await releaseChunk(store, chunk);
    return { kind: "outdated" };
  }
  if (error instanceof CrossfadeError && ["STALE", "SHAPE_CHANGED"].includes(error.code)) {
    for (const chunk of chunks) await releaseChunk(store, chunk);
    throw error;
  }
  for (const chunk of chunks) {
    log.warn(
      { err: error, table: chunk.table, chunk: chunk.n },
      `backfill: chunk ${chunk.n} of ${chunk.table}: ${messageOf(error)}`,
    );
    await failChunk(store, chunk, messageOf(error));
  }
  throw error;
}
