import type { Plan } from "../../config/plan-types.ts";
import type { CompiledDirection } from "../../store/postgres/mapping.ts";
import { type Estimates, estimate } from "./estimate.ts";
import { examine } from "./examine.ts";
import { Lab } from "./lab.ts";
import { Source } from "./source.ts";

/** Rows of each table that are looked at: enough for sizes, and soon done. */
const ROWS = 5_000;
const STATEMENT_MS = 60_000;

/** What the copy will take, from a few rows of each table: as `check` says it, without the rest of `check`. Changes nothing. */
export async function estimateCopy(plan: Plan, forward: CompiledDirection): Promise<Estimates> {
  await using old = await Source.open(plan, "old", {
    limit: ROWS,
    statementTimeoutMs: STATEMENT_MS,
  });
  await using lab = await Lab.open({
    plan,
    side: "new",
    statementTimeoutMs: STATEMENT_MS,
    shadows: true,
  });
  const examined = await examine({
    plan,
    compiled: forward,
    source: old,
    mapper: lab,
    target: lab,
    shadow: true,
    signal: undefined,
  });
  return await estimate(lab, forward, examined, plan.backfill.workers);
}
