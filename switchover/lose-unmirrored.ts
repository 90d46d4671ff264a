import { CrossfadeError } from "../config/errors.ts";
import { phaseIndex } from "../config/words.ts";
import type { Phase } from "../config/words.ts";
import { addEvent } from "../store/control/history.ts";
import { changeMigration, readMigration, releaseWrites } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import type { Attempt } from "../store/postgres/state.ts";
import type { Execution } from "./effects.ts";
import { readsNewIn } from "./machine.ts";
import type { WalkResult } from "./walk.ts";

/** Going back without new, which is gone: what old was not told is given up, by a person's word (DESIGN §2.7, §2.12). */

/** What is known of what would be lost, from old and the control store alone. */
export interface Unmirrored {
  /** The last fence of new's log (with `feed: wal` also the position) that old has passed. */
  readonly fence: string | null;
  readonly lsn: string | null;
  /** What was committed on new before this is on old, but for quarantined keys; null: nobody who would know has reported. */
  readonly mirrored_until: string | null;
  /** Keys of new that old was refused or that wait to be tried again. */
  readonly quarantined: number;
  readonly why: string;
}

const DEFAULT_PHASE: Phase = "shadow";

/** Makes old the authority although new does not answer; with `dryRun` only says what that would lose. */
export async function loseUnmirrored(
  execution: Execution,
  options: { readonly to: Phase | undefined; readonly dryRun: boolean },
): Promise<WalkResult> {
  const { engine, store, lead, by, log } = execution;
  const migration = await readMigration(store);
  const to = options.to ?? DEFAULT_PHASE;
  refuseHopeless(migration, to);
  const lost = await engine.unmirrored();
  const { epoch, phase } = migration;
  const step = { from: phase, to };
  if (options.dryRun)
    return { phase, canary_step: migration.canaryStep, epoch, steps: [step], receipt: null, lost };
  // The word first: whoever finds this half done knows who gave it, and may give it again.
  await addEvent(store, { kind: "lose-unmirrored", by, detail: { ...lost } });
  await lead();
  const attempt = await engine.takeBack({ epoch, attempt: migration.lastAttempt });
  const after = await publish(execution, attempt, to);
  const gap = `new was given up: ${lost.why}`;
  await addEvent(store, {
    kind: "phase",
    by,
    detail: { ...step, reads_new: 0, canary_step: 0, gap },
  });
  log.error(
    { lost, epoch: after.epoch },
    "controller: old is the authority again; what only new had is given up",
  );
  return { phase: to, canary_step: 0, epoch: after.epoch, steps: [step], receipt: null, lost };
}

function refuseHopeless({ phase }: Migration, to: Phase): void {
  if (phaseIndex(phase) < phaseIndex("read-new") || phase === "done") {
    throw new CrossfadeError("REFUSED", `in phase ${phase} no write of new can be unmirrored`, {
      hint: "--lose-unmirrored is for write-new, and for a flip that new's failure interrupted.",
    });
  }
  const [first, last] = [phaseIndex("dual-write"), phaseIndex("read-new")];
  if (phaseIndex(to) >= first && phaseIndex(to) <= last) return;
  throw new CrossfadeError("REFUSED", `without new there is no way to ${to}`, {
    hint: `Name a phase from dual-write to read-new, or none: ${DEFAULT_PHASE}.`,
  });
}

/** The gap sends all reads to old, and has every table copied again, deletes included, once new is back. */
async function publish(
  { store }: Execution,
  { number, epoch }: Attempt,
  to: Phase,
): Promise<Migration> {
  for (;;) {
    const now = await readMigration(store);
    const after = await changeMigration(
      store,
      { phase: now.phase, epoch: now.epoch, version: now.version },
      {
        phase: to,
        authority: "old",
        epoch,
        readsNew: readsNewIn(to),
        canaryStep: 0,
        gap: "new was given up while it was away: it may hold writes that old does not have",
      },
    );
    if (after === undefined) continue;
    await releaseWrites(store, number);
    return after;
  }
}
