import type { Plan } from "../../config/plan-types.ts";
import type { CompiledDirection } from "../../store/postgres/mapping.ts";
import { wouldDefer } from "../deferring.ts";
import type { Finding } from "./finding.ts";

const PATH = "backfill.defer";

/** What the copy would do without, what it leaves where it is and why, and what keeps it from building anything again. */
export async function deferFindings(plan: Plan, forward: CompiledDirection): Promise<Finding[]> {
  if (plan.backfill.defer.length === 0) return [];
  const { objects, stays, unfit } = await wouldDefer(plan, forward);
  const named = (list: readonly { readonly table: string; readonly name: string }[]) =>
    list.map(({ table, name }) => `${name} of ${table}`).join(", ");
  const reasons = [...new Set(stays.map(({ why }) => why))];
  return [
    ...unfit.map((what): Finding => ({
      severity: "error",
      path: PATH,
      what: `${what}: what is dropped could not be built again, so nothing is copied`,
    })),
    {
      severity: "ok",
      path: PATH,
      what:
        objects.length === 0
          ? "nothing is dropped during the copy"
          : `dropped during the copy and built again before verify: ${named(objects)}`,
    },
    ...reasons.map((why): Finding => ({
      severity: "ok",
      path: PATH,
      what: `stays, because ${why}: ${named(stays.filter((each) => each.why === why))}`,
    })),
  ];
}
