import { readMigration } from "../store/control/migration.ts";
import { closeControlStore, openControlStore } from "../store/control/open.ts";
import { isInstalled } from "../store/control/schema.ts";
import type { Standing } from "../switchover/walk.ts";
import type { Context } from "./command.ts";

/** Where the migration stands now; undefined: it has not begun, there is no control store. */
export async function standingNow({ plan }: Context): Promise<Standing | undefined> {
  const store = openControlStore(plan, { role: "cli", instance: "ahead" });
  try {
    if (!(await isInstalled(store))) return undefined;
    const { phase, canaryStep, epoch } = await readMigration(store);
    return { phase, canary_step: canaryStep, epoch };
  } finally {
    await closeControlStore(store);
  }
}
