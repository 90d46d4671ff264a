import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { enqueueCommand, isQueued } from "../store/control/commands.ts";
import { addEvent, eventAge } from "../store/control/history.ts";
import { readMigration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { WATCHED } from "./watchdog.ts";
import type { Trigger } from "./watchdog.ts";

/**
 * Asks for a rollback without being asked. To shadow, whatever the phase: the phase before would leave clients with the
 * app that fails. Once within the cool-down: what comes after it is for a person to decide, so nothing swings.
 */
export async function goBack(
  { store, plan, log }: { readonly store: ControlStore; readonly plan: Plan; readonly log: Log },
  { name, value, limit }: Trigger,
): Promise<boolean> {
  const { phase } = await readMigration(store);
  const age = await eventAge(store, "trigger");
  const cooling = age !== undefined && age < (plan.policy.rollbackOn?.cooldownMs ?? 0);
  if (!WATCHED.includes(phase) || cooling || (await isQueued(store, ["rollback"]))) return false;
  const why = `${name}: ${value} (limit ${limit})`;
  // The record first: should this process end here, a person sees the trigger, and nothing is asked for twice.
  await addEvent(store, {
    kind: "trigger",
    by: "controller",
    detail: { trigger: name, value, limit, phase, why },
  });
  await enqueueCommand(store, {
    kind: "rollback",
    args: { to: "shadow", wait: true },
    by: `controller: ${why}`,
  });
  log.error({ trigger: name, value, limit, phase }, `controller: going back by itself: ${why}`);
  return true;
}
