import { CrossfadeError, messageOf } from "../config/errors.ts";
import { type Phase, SIDES } from "../config/words.ts";
import { createBackup } from "../store/backup/backup.ts";
import { expired, listBackups, removeBackup } from "../store/backup/catalogue.ts";
import { addEvent } from "../store/control/history.ts";
import type { Execution } from "./effects.ts";

/** An advance that is asked for again, after a gate said no, need not dump everything again. */
const STILL_FRESH_MS = 3_600_000;

/**
 * Takes the backup that the plan asks for before a phase, and prunes what the retention gives up. True if one was taken: it
 * may have needed hours, so the gates have to be asked again. Throws REFUSED if it fails; the phase is then not entered.
 */
export async function backupBefore(execution: Execution, phase: Phase): Promise<boolean> {
  const { plan, store, by, signal, log } = execution;
  if (!plan.backup.before.includes(phase)) return false;
  const why = `before ${phase}`;
  const { dir } = plan.backup;
  try {
    const fresh = (await listBackups(dir)).some(
      (backup) => backup.why === why && Date.now() - new Date(backup.at).getTime() < STILL_FRESH_MS,
    );
    if (fresh) return false;
    log.info({ phase }, `controller: taking the backup before ${phase}`);
    const made = await createBackup(plan, { why, sides: SIDES, signal });
    const gone = expired(await listBackups(dir), plan.backup, new Date());
    for (const backup of gone) await removeBackup(dir, backup);
    await addEvent(store, {
      kind: "backup",
      by,
      detail: { backup: made.id, why, pruned: gone.map(({ id }) => id) },
    });
    return true;
  } catch (error) {
    signal.throwIfAborted();
    throw new CrossfadeError("REFUSED", `the backup before ${phase} failed: ${messageOf(error)}`, {
      hint: "Nothing was changed. Repair what it complains of and advance again, or take the phase out of backup.before.",
      cause: error,
    });
  }
}
