import { setTimeout as sleep } from "node:timers/promises";
import { phaseIndex } from "../config/words.ts";
import { progress } from "../store/control/chunk-ledger.ts";
import { addEvent } from "../store/control/history.ts";
import { changeMigration, readMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import { readWorkers } from "../store/control/workers.ts";
import { verifyUntilClean } from "./effects.ts";
import type { Execution } from "./effects.ts";
import { FRESH_MS, activeDirection } from "./gate-facts.ts";

const POLL_MS = 500;

/**
 * A database went back in time, so what was mirrored may be lost (DESIGN §2.4): every table is copied and compared again,
 * deletes included, before fences count. Before anything was copied there is nothing to make good.
 *
 * Interrupted, it goes on where it was. Where the gap is reported again meanwhile, it returns with the gap still open: what
 * was copied may be from before that, and the next call begins anew.
 */
export async function healGap(execution: Execution, migration: Migration): Promise<void> {
  const { store, signal, lead, log, by } = execution;
  const { phase, epoch, gap, gapReport } = migration;
  const asReported = { phase, epoch, gapReport };
  if (phaseIndex(phase) >= phaseIndex("backfill")) {
    if (migration.gapPlanned !== gapReport && !(await planAgain(execution, migration))) return;
    // A fence that is written before the mirror has its feed back never passes: a comparison would wait for it in vain.
    while (!(await isCopied(execution, migration)) || !(await isFollowed(execution, migration))) {
      if ((await readMigration(store)).gapReport !== gapReport) return;
      await sleep(POLL_MS, undefined, { signal });
    }
    await verifyUntilClean(execution);
  }
  await lead();
  const healed = await changeMigration(store, asReported, { gap: null });
  if (healed === undefined) {
    log.warn({ gap }, "controller: the gap stays open: it was reported again meanwhile");
    return;
  }
  await addEvent(store, { kind: "gap-healed", by, detail: { gap } });
}

/** False: reported again, so that what is copied from now on may be too old. */
async function planAgain(
  { store, engine, signal, log }: Execution,
  migration: Migration,
): Promise<boolean> {
  const { phase, epoch, gap, gapReport } = migration;
  log.warn({ gap }, "controller: copying every table again");
  await engine.planChunks(activeDirection(migration), signal);
  const planned = { gapPlanned: gapReport };
  return (await changeMigration(store, { phase, epoch, gapReport }, planned)) !== undefined;
}

async function isFollowed({ store }: Execution, { epoch }: Migration): Promise<boolean> {
  const mirrors = await readWorkers(store, "mirror");
  return mirrors.some(
    ({ seenMs, stats }) => seenMs <= FRESH_MS && stats.state === "running" && stats.epoch === epoch,
  );
}

async function isCopied({ store }: Execution, migration: Migration): Promise<boolean> {
  const tables = await progress(store, activeDirection(migration));
  return tables.every((table) => table.done === table.chunks);
}
