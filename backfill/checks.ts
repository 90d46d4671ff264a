import type { CheckPlan, Plan } from "../config/plan-types.ts";
import type { Side } from "../config/words.ts";
import type { SyncContext } from "../store/postgres/sync.ts";
import { runUserCheck } from "../store/postgres/user-check.ts";
import { awaitFence } from "./fence.ts";

/** How often a check is asked again after a fence before what it found counts. */
const ROUNDS = 5;

/**
 * One of the plan's `checks`: the rows that should not be there (`on: old` or `new`), or that only one side returns
 * (`on: both`). What is in flight between the sides explains some of it, so it is asked again after fences.
 */
export async function runCheck(
  context: SyncContext,
  plan: Plan,
  check: CheckPlan,
): Promise<string[]> {
  let found = await once(context, plan, check);
  for (let round = 1; round < ROUNDS && found.length > 0; round += 1) {
    await awaitFence(context);
    found = await once(context, plan, check);
  }
  return found;
}

async function once(context: SyncContext, plan: Plan, { on, sql }: CheckPlan): Promise<string[]> {
  const ask = (side: Side) =>
    runUserCheck(
      side === context.compiled.source ? context.source : context.target,
      plan[side].schema,
      sql,
    );
  if (on !== "both") return ask(on);
  const [old, next] = [await ask("old"), await ask("new")];
  return [...without(old, next), ...without(next, old)];
}

/** Rows of `rows` that `others` does not have, as often as it lacks them. */
function without(rows: readonly string[], others: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const row of others) left.set(row, (left.get(row) ?? 0) + 1);
  return rows.filter((row) => {
    const count = left.get(row) ?? 0;
    left.set(row, count - 1);
    return count <= 0;
  });
}
