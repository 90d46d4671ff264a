import { messageOf, CrossfadeError } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import {
  type ClaimedChunk,
  claimChunk,
  failChunk,
  finishChunk,
  releaseChunk,
  renewLease,
} from "../store/control/chunk-ledger.ts";
import type { ControlStore } from "../store/control/open.ts";
import type { Engine } from "../store/postgres/engine.ts";
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
      readonly result: ChunkResult;
      readonly ms: number;
    }
  | { readonly kind: "outdated" };

/**
 * Claims the next chunk and copies it: one sync in one transaction, then the ledger. Dying in between costs a
 * repetition. Errors of the chunk itself are noted in the ledger and the worker goes on; STALE is thrown.
 */
export async function copyNextChunk(
  store: ControlStore,
  engine: Engine,
  worker: string,
  log: Log,
): Promise<ChunkOutcome> {
  const { compiled } = engine.context;
  const chunk = await claimChunk(store, compiled.direction, worker, LEASE_MS);
  if (chunk === undefined) return { kind: "none" };
  const driver = compiled.drivers.find((candidate) => candidate.name === chunk.table);
  if (driver === undefined) {
    await failChunk(store, chunk, `the plan has no mapping from ${chunk.table} any more`, 1);
    return { kind: "outdated" };
  }
  const lease = setInterval(() => void renew(store, chunk, log), LEASE_MS / 3);
  const started = performance.now();
  try {
    const result = await syncChunk(engine.context, driver, {
      n: chunk.n,
      lo: chunk.lo ?? null,
      hi: chunk.hi ?? null,
      version: chunk.planVersion,
    });
    const ms = performance.now() - started;
    await finishChunk(store, chunk, { rows: result.rows, ms });
    return { kind: "copied", table: chunk.table, result, ms };
  } catch (error) {
    return await giveBack(store, chunk, error, log);
  } finally {
    clearInterval(lease);
  }
}

async function renew(store: ControlStore, chunk: ClaimedChunk, log: Log): Promise<void> {
  try {
    await renewLease(store, chunk, LEASE_MS);
  } catch (error) {
    // A lease that runs out means that the chunk may be copied twice, which is harmless.
    log.info({ err: error }, "backfill: the lease of a chunk could not be renewed");
  }
}

async function giveBack(
  store: ControlStore,
  chunk: ClaimedChunk,
  error: unknown,
  log: Log,
): Promise<ChunkOutcome> {
  if (error instanceof ChunkPlanMoved) {
    await releaseChunk(store, chunk);
    return { kind: "outdated" };
  }
  if (error instanceof CrossfadeError && ["STALE", "SHAPE_CHANGED"].includes(error.code)) {
    await releaseChunk(store, chunk);
    throw error;
  }
  log.warn(
    { err: error, table: chunk.table, chunk: chunk.n },
    `backfill: chunk ${chunk.n} of ${chunk.table}: ${messageOf(error)}`,
  );
  await failChunk(store, chunk, messageOf(error));
  throw error;
}
