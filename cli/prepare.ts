import { existsSync } from "node:fs";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Phase } from "../config/words.ts";
import { failStaticFile } from "../proxy/fail-static.ts";
import { readMigration } from "../store/control/migration.ts";
import { closeControlStore, type ControlStore, openControlStore } from "../store/control/open.ts";
import { install, isInstalled } from "../store/control/schema.ts";
import type { Context } from "./command.ts";
import { validatePlan } from "./validate.ts";

/**
 * Before a migration begins: the plan is checked against both databases and, only if nothing is wrong, the control store
 * is created. Nothing is left behind otherwise.
 */
export async function prepare({ plan }: Context): Promise<void> {
  await withControlStore(plan, async (store) => {
    if (await isInstalled(store)) return;
    await validatePlan(plan);
    await install(store);
  });
}

/**
 * Before the roles start. A migration that has begun goes on whatever is away: its sidecar carries live traffic, and the
 * other roles wait for their database.
 */
export async function prepareUp({ plan, log }: Context): Promise<void> {
  try {
    await withControlStore(plan, async (store) => {
      // After done the old tables stand aside, and there is nothing left to map.
      if ((await phaseOf(store)) !== "done") await validatePlan(plan);
      await install(store);
    });
  } catch (error) {
    const away = error instanceof CrossfadeError && error.code === "DATABASE_UNREACHABLE";
    if (!away || !existsSync(failStaticFile(plan))) throw error;
    log.error(
      { err: error },
      `${messageOf(error)}; the sidecar goes on with the last state it knew`,
    );
  }
}

async function phaseOf(store: ControlStore): Promise<Phase | undefined> {
  return (await isInstalled(store)) ? (await readMigration(store)).phase : undefined;
}

async function withControlStore(
  plan: Plan,
  work: (store: ControlStore) => Promise<void>,
): Promise<void> {
  const store = openControlStore(plan, { role: "cli", instance: String(process.pid) });
  try {
    await work(store);
  } finally {
    await closeControlStore(store);
  }
}
