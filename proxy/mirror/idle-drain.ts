import type pg from "pg";
import { type Log, RunningState } from "../../config/lifecycle.ts";
import type { Plan } from "../../config/plan-types.ts";
import { directionFrom, type Side } from "../../config/words.ts";
import { publicationName } from "../../store/postgres/install-wal-feed.ts";
import type { Lsn } from "../../store/postgres/lsn.ts";
import { closeSession, openSession, sideLabel } from "../../store/postgres/session.ts";
import { findState } from "../../store/postgres/state.ts";
import { WalStream } from "../../store/postgres/wal-stream.ts";
import { findSlot, restoreSlot } from "../../store/postgres/wal-slot.ts";

export interface IdleDrainOptions {
  readonly plan: Plan;
  /** The side that follows: its feed is idle. */
  readonly side: Side;
  readonly epoch: number;
  readonly application: string;
  readonly log: Log;
  readonly signal: AbortSignal;
}

const CONFIRM_MS = 1_000;

/**
 * Reads the wal feed of the side that follows and discards it, so that its server need not keep the WAL. Something is
 * confirmed only after the side's own state row has said, later than it was read, that the side still follows: what an
 * app wrote after a flip is never discarded, because the direction changes before the guard opens.
 */
export async function drainIdle(options: IdleDrainOptions): Promise<void> {
  const running = new RunningState({
    name: "idle feed",
    log: options.log,
    initialBackoffMs: 500,
    maxBackoffMs: 5_000,
  });
  options.signal.addEventListener("abort", () => running.stop(), { once: true });
  if (options.signal.aborted) running.stop();
  while (running.shouldRun()) {
    let error: unknown;
    try {
      if (!(await drain(options, running))) return;
    } catch (caught) {
      error = caught;
    }
    await running.backoff(error);
  }
}

/** Returns whether the side still follows. */
async function drain(options: IdleDrainOptions, running: RunningState): Promise<boolean> {
  const { plan, side, application } = options;
  const client = await openSession({
    url: plan[side].database,
    name: sideLabel(side),
    application,
  });
  try {
    await restoreSlot(client, side, CONFIRM_MS * 5);
    const slot = await findSlot(client, side);
    if (slot?.confirmed === undefined) return await follows(client, options);
    let reached: Lsn = slot.confirmed;
    const stream = await WalStream.open({
      url: plan[side].database,
      name: sideLabel(side),
      application,
      slot: slot.name,
      publication: publicationName(side),
      from: reached,
      onMessage: () => {},
      onReached: (lsn) => (reached = lsn),
    });
    try {
      while (running.shouldRun()) {
        stream.check();
        const until = reached;
        if (!(await follows(client, options))) return false;
        stream.confirm(until);
        running.healthy();
        await running.sleep(CONFIRM_MS);
      }
      return true;
    } finally {
      await stream.close();
    }
  } finally {
    await closeSession(client);
  }
}

async function follows(client: pg.Client, { side, epoch }: IdleDrainOptions): Promise<boolean> {
  const state = await findState(client, side);
  return state !== undefined && state.epoch === epoch && state.direction !== directionFrom(side);
}
