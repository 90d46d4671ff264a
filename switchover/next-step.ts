import type { Plan } from "../config/plan-types.ts";
import type { Migration } from "../store/control/migration.ts";
import { stayOfOld } from "./drop-old.ts";
import { blocks } from "./gates.ts";
import type { GateResult } from "./gate-facts.ts";
import type { Transition } from "./machine.ts";

/** What can be done next, in a sentence: for somebody who looks at a status for the first time, at night. */
export function nextStep(
  migration: Migration,
  decided: Transition,
  gates: readonly GateResult[],
  plan: Plan,
): string {
  if (migration.phase === "done") return afterDone(migration, plan);
  if (decided.kind !== "go") return decided.why;
  const { phase, canaryStep } = decided.next;
  const share = plan.canary.steps[canaryStep - 1] ?? 0;
  const to =
    phase === "canary"
      ? `canary step ${canaryStep} (${share * 100} % of clients read from new)`
      : phase;
  const blocking = gates.filter(blocks);
  if (blocking.length === 0) return `\`crossfade advance\` goes to ${to}`;
  const yours = blocking.filter(({ heals }) => heals === "never");
  const names = (yours.length > 0 ? yours : blocking).map(({ name }) => name).join(", ");
  return yours.length > 0
    ? `${to}; held back by ${names}, which will not pass by waiting: see why below`
    : `${to}; held back by ${names} for now: \`crossfade advance --wait\` waits`;
}

function afterDone({ phaseSince }: Migration, plan: Plan): string {
  const from = new Date(phaseSince.getTime() + stayOfOld(plan)).toISOString();
  return `sidecars pass everything to the new app: send traffic there directly, then stop them. \`crossfade clean --drop-old\` drops the old tables from ${from} on; \`crossfade clean\` removes the rest`;
}
