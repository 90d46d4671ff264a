import type pg from "pg";
import { CrossfadeError } from "../config/errors.ts";
import { SIDES } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import { readMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import { isSameDatabase } from "../store/postgres/compile.ts";
import { initPosition, installFollowTables } from "../store/postgres/follow-schema.ts";
import { arm, createGuards } from "../store/postgres/guard.ts";
import { installSide, uninstallSide } from "../store/postgres/install-side.ts";
import { moveAside, removeFeed, removeFollowTables } from "../store/postgres/removal.ts";
import { forgetShapes } from "../store/postgres/shape-watch.ts";
import { findState } from "../store/postgres/state.ts";
import type { LeadCheck } from "./engine.ts";
import { ensureFeed, onSide } from "./both-sides.ts";
import type { Compiled, Wiring } from "./both-sides.ts";

/** Installing both sides for dual-write, and taking everything off again. All of it can be repeated. */

const ARM_MS = 60_000;

/** State rows first (they say whose database it is), then feeds and positions, guards last: old is never refused anything. */
export async function installSides(
  wiring: Wiring,
  compiled: Compiled,
  lead: LeadCheck,
): Promise<void> {
  const migration = await readMigration(wiring.store);
  for (const side of SIDES) {
    await lead();
    await onSide(wiring, side, async (client) => {
      await installSide(client, { side, plan: wiring.plan.name });
      await goOnFrom(client, side, migration);
      await installFollowTables(client);
      await initPosition(client, side === "new" ? "forward" : "reverse", migration.epoch);
    });
    await ensureFeed(wiring, compiled, side);
  }
  await lead();
  await onSide(wiring, "old", (client) => createGuards(client, "old", compiled.tables.old));
  const change = {
    side: "new",
    tables: compiled.tables.new,
    attempt: migration.lastAttempt,
    timeoutMs: ARM_MS,
  } as const;
  await onSide(wiring, "new", (client) => arm(client, change));
}

/**
 * Takes the tables as they are after DDL: shapes are forgotten, log functions and triggers made anew, partitions guarded.
 * The feed counts as complete only once the transactions that a missing trigger did not see have ended.
 */
export async function acceptShapes(
  wiring: Wiring,
  compiled: Compiled,
  lead: LeadCheck,
): Promise<void> {
  const { authority } = await readMigration(wiring.store);
  for (const side of SIDES) {
    await lead();
    await onSide(wiring, side, async (client) => {
      await client.query("delete from crossfade.feed where side = $1", [side]);
      await forgetShapes(client, side);
    });
    await ensureFeed(wiring, compiled, side);
    await lead();
    await onSide(wiring, side, async (client) => {
      const tables = compiled.tables[side];
      if (side === authority) return createGuards(client, side, tables);
      const attempt = (await findState(client, side))?.attempt ?? 0;
      return arm(client, { side, tables, attempt, timeoutMs: ARM_MS });
    });
  }
}

/**
 * Refuses to begin where a side knows more than the control store. Asked before anything is installed, because a failed
 * install is undone, and what is there then may be a migration in full swing.
 */
export async function refuseLostStore(wiring: Wiring): Promise<void> {
  const migration = await readMigration(wiring.store);
  if (migration.phase !== "off") return;
  for (const side of SIDES)
    await onSide(wiring, side, (client) => refuseForeign(client, side, migration));
}

/** A side that knows more than the control store: the store was lost or restored, and installing would overwrite the truth. */
async function refuseForeign(client: pg.Client, side: Side, migration: Migration): Promise<void> {
  const state = await findState(client, side);
  if (state === undefined || state.plan !== migration.plan) return;
  if (state.epoch <= migration.epoch && state.attempt <= migration.lastAttempt) return;
  throw new CrossfadeError(
    "REFUSED",
    `the ${side} database is at epoch ${state.epoch}, attempt ${state.attempt}; the control store only knows epoch ${migration.epoch}, attempt ${migration.lastAttempt}`,
    {
      hint: "The control store was lost or restored. Restore it, or remove what is installed with `crossfade clean` and begin again.",
    },
  );
}

/** A new installation goes on from the numbers of the last: epochs and attempts never go back, or sidecars would not follow. */
async function goOnFrom(
  client: pg.Client,
  side: Side,
  { epoch, lastAttempt }: Migration,
): Promise<void> {
  await client.query(
    `update crossfade.state set epoch = $2::int, attempt = $3::int
     where side = $1 and attempt_ended and (epoch < $2::int or attempt < $3::int)`,
    [side, epoch, lastAttempt],
  );
}

/** Removes everything of this plan from both sides. The state row goes last: while it is there, something is left to do. */
export async function uninstallSides(wiring: Wiring, lead: LeadCheck): Promise<void> {
  const ours = await sidesOfPlan(wiring);
  await removeFollowing(wiring, ours, lead);
  for (const side of ours) {
    await lead();
    await onSide(wiring, side, (client) => uninstallSide(client, side));
  }
}

/** After done: nothing follows any more, new is unguarded, and the old tables stand aside behind their guard. */
export async function teardownSides(wiring: Wiring, lead: LeadCheck): Promise<void> {
  const ours = await sidesOfPlan(wiring);
  await removeFollowing(wiring, ours, lead);
  if (ours.includes("new")) await onSide(wiring, "new", (client) => uninstallSide(client, "new"));
  await lead();
  if (ours.includes("old")) await onSide(wiring, "old", (client) => moveAside(client, "old"));
}

async function removeFollowing(
  wiring: Wiring,
  ours: readonly Side[],
  lead: LeadCheck,
): Promise<void> {
  for (const side of ours) {
    await lead();
    await onSide(wiring, side, (client) => removeFeed(client, side));
  }
  const databases = isSameDatabase(wiring.plan) ? ours.slice(0, 1) : ours;
  for (const side of databases) await onSide(wiring, side, removeFollowTables);
}

/** Sides that this plan is installed on. Another plan's are not touched. */
async function sidesOfPlan(wiring: Wiring): Promise<Side[]> {
  const found: Side[] = [];
  for (const side of SIDES) {
    const state = await onSide(wiring, side, (client) => findState(client, side));
    if (state?.plan === wiring.plan.name) found.push(side);
  }
  return found;
}
