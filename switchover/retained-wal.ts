import { messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { SIDES, type Side } from "../config/words.ts";
import { addEvent } from "../store/control/history.ts";
import { changeMigration, readMigration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { dropSlot, findSlot } from "../store/postgres/wal-slot.ts";
import { onSide } from "./both-sides.ts";
import { size } from "./spans.ts";

const LOOK_MS = 5_000;

export interface RetainedWalOptions {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly log: Log;
  /** Throws when somebody else leads. */
  readonly lead: () => Promise<void>;
}

/**
 * A slot nobody reads makes its server keep WAL until the disk is full, and then the app stands still. Beyond the plan's
 * limit the mirror is paused, the gap is noted, and the slot dropped; resuming copies and compares every table again.
 * The leading controller watches, so that it works while no mirror runs.
 */
export class RetainedWalWatch {
  #lookedAt = -LOOK_MS;
  #looking: Promise<void> | undefined;

  /** Looks now and then, beside whatever else goes on; a database that does not answer delays nobody. */
  tick(options: RetainedWalOptions): void {
    if (options.plan.feed !== "wal" || this.#looking !== undefined) return;
    if (performance.now() - this.#lookedAt < LOOK_MS) return;
    this.#looking = Promise.all(SIDES.map((side) => look(options, side)))
      .then(() => {})
      .finally(() => {
        this.#lookedAt = performance.now();
        this.#looking = undefined;
      });
  }

  /** Resolves when it does not look any more. */
  async idle(): Promise<void> {
    await this.#looking;
  }
}

async function look(options: RetainedWalOptions, side: Side): Promise<void> {
  const { plan, log } = options;
  try {
    const retained = await onSide(
      { plan },
      side,
      async (client) => (await findSlot(client, side))?.retained ?? 0,
    );
    if (retained > plan.wal.retainBytes) await letGo(options, side, retained);
  } catch (error) {
    log.warn(
      { err: error },
      `controller: how much WAL the ${side} database keeps is unknown: ${messageOf(error)}`,
    );
  }
}

/** The gap first: dying before the slot is gone only means that more is copied than would be needed. */
async function letGo(options: RetainedWalOptions, side: Side, retained: number): Promise<void> {
  const { plan, store, log, lead } = options;
  const migration = await readMigration(store);
  const why = `the ${side} database kept ${size(retained)} of WAL for Crossfade, more than wal.retain (${size(plan.wal.retainBytes)}): the replication slot was dropped before the disk fills`;
  await lead();
  if (migration.authority === side && migration.phase !== "off" && migration.phase !== "done") {
    const { phase, epoch, version } = migration;
    const gap = `${why}; the mirror is paused, and \`crossfade resume\` copies every table again`;
    const changed = await changeMigration(
      store,
      { phase, epoch, version },
      { gap, paused: { mirror: true } },
    );
    // Something else moved on meanwhile: the next look decides again.
    if (changed === undefined) return;
  }
  log.error({ side, retained }, `controller: ${why}`);
  await addEvent(store, { kind: "slot-dropped", by: "controller", detail: { side, why } });
  await onSide({ plan }, side, (client) => dropSlot(client, side));
}
