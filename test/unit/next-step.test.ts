import { expect, test } from "vitest";
import { walkResult } from "../../cli/walk-command.ts";
import type { Plan } from "../../config/plan-types.ts";
import { NO_POLICY } from "../../config/policy.ts";
import type { Migration } from "../../store/control/migration.ts";
import type { GateResult } from "../../switchover/gate-facts.ts";
import { transition } from "../../switchover/machine.ts";
import { nextStep } from "../../switchover/next-step.ts";

const PLAN = { canary: { steps: [0.01, 0.25] }, policy: NO_POLICY } as unknown as Plan;

function next(migration: Partial<Migration>, ...gates: GateResult[]): string {
  const state = { phase: "off", authority: "old", canaryStep: 0, ...migration } as Migration;
  const facts = { canarySteps: PLAN.canary.steps, reverse: true, defer: false };
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
    "verify; held back by backfill for now: `crossfade advance --wait` waits",
  );
  expect(next({ phase: "shadow" }, gate("lag", "by-waiting"), gate("shadow", "never"))).toBe(
    "canary step 1 (1 % of clients read from new); held back by shadow, which will not pass by waiting: see why below",
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

test("a dry run ends with whether it would go, and says in words what it would do", () => {
  const lag = {
    name: "lag",
    state: "fail",
    value: "3 s",
    limit: "1 s",
    why: "the mirror is behind",
  } as const;
  const step = {
    from: "dual-write",
    to: "backfill",
    gates: [lag],
    effects: [{ do: "plan-chunks" }],
    sql: [{ on: "old", sql: "select 1" }],
  } as const;
  const walk = { phase: "dual-write", canary_step: 0, epoch: 1, receipt: null } as const;
  expect(
    walkResult({ ...walk, steps: [step] }, true)
      .text.split("\n")
      .slice(2),
  ).toEqual([
    "  then  cut every table into chunks for the backfill",
    "  on old  select 1",
    "held back by lag (before backfill)",
    "phase dual-write, epoch 1 (nothing was changed)",
  ]);
  const passing = { ...step, gates: [{ ...lag, state: "pass" as const }] };
  expect(walkResult({ ...walk, steps: [passing] }, true).text).toContain(
    "no gate stands in the way now",
  );
});
