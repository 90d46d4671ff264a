import { phaseIndex } from "../config/words.ts";
import { progress } from "../store/control/chunk-ledger.ts";
import { addEvent } from "../store/control/history.ts";
import { setMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import { verifyUntilClean } from "./effects.ts";
import type { Execution } from "./effects.ts";
import { activeDirection } from "./gates.ts";

const POLL_MS = 500;

/**
 * A database went back in time, so what was mirrored may be lost (DESIGN §2.4): every table is copied and compared again,
 * deletes included, before fences count. Before anything was copied there is nothing to make good.
 */
export async function healGap(execution: Execution, migration: Migration): Promise<void> {
  const { store, engine, signal, lead, log, by } = execution;
  const { phase, epoch, version, gap } = migration;
  const direction = activeDirection(migration);
  if (phaseIndex(phase) >= phaseIndex("backfill")) {
    log.warn({ gap }, "controller: copying every table again");
    await engine.planChunks(direction, signal);
    while ((await progress(store, direction)).some((table) => table.done < table.chunks)) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    await verifyUntilClean(execution);
  }
  await lead();
  await setMigration(store, { phase, epoch, version }, { gap: null });
  await addEvent(store, { kind: "gap-healed", by, detail: { gap } });
}
