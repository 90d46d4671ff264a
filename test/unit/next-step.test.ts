import { expect, test } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { NO_POLICY } from "../../config/policy.ts";
import type { Migration } from "../../store/control/migration.ts";
import type { GateResult } from "../../switchover/gates.ts";
import { transition } from "../../switchover/machine.ts";
import { nextStep } from "../../switchover/next-step.ts";

const PLAN = { canary: { steps: [0.01, 0.25] }, policy: NO_POLICY } as unknown as Plan;

function next(migration: Partial<Migration>, ...gates: GateResult[]): string {
  const state = { phase: "off", authority: "old", canaryStep: 0, ...migration } as Migration;
  const facts = { canarySteps: PLAN.canary.steps, reverse: true };
  return nextStep(state, transition(state, { kind: "advance" }, facts), gates, PLAN);
}

const gate = (name: GateResult["name"], heals: GateResult["heals"]): GateResult => ({
  name,
  state: "fail",
  value: null,
  limit: null,
  why: "",
  heals,
});

test("what can be done next is said in every phase", () => {
  expect(next({})).toBe("`crossfade advance` goes to dual-write");
  expect(next({ phase: "backfill" }, gate("backfill", "by-waiting"))).toBe(
    "verify, once backfill allows it: `crossfade advance --wait` waits",
  );
  expect(next({ phase: "shadow" }, gate("lag", "by-waiting"), gate("shadow", "never"))).toBe(
    "canary step 1 (1 % of clients read from new), once somebody has seen to shadow",
  );
  expect(next({ phase: "canary", canaryStep: 1 })).toBe(
    "`crossfade advance` goes to canary step 2 (25 % of clients read from new)",
  );
  expect(next({ phase: "canary", canaryStep: 2 })).toBe("`crossfade advance` goes to read-new");
  expect(next({ phase: "write-new", authority: "old" })).toContain("a flip was interrupted");
  const done = next({ phase: "done", authority: "new", phaseSince: new Date(0) });
  expect(done).toContain("send traffic there directly, then stop them");
  expect(done).toContain("from 1970-01-08T00:00:00.000Z on");
});
