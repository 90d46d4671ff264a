import { describe, expect, test } from "vitest";
import { PHASES, phaseIndex } from "../../config/words.ts";
import type { Phase, Side } from "../../config/words.ts";
import { authorityIn, readsNewIn, reconcile, transition } from "../../switchover/machine.ts";
import type { Effect, MachineFacts, MachineState, Transition } from "../../switchover/machine.ts";

const FACTS: MachineFacts = { canarySteps: [0.01, 0.25, 0.5], reverse: true, defer: false };

function state(phase: Phase, canaryStep = phase === "canary" ? 1 : 0): MachineState {
  return { phase, authority: authorityIn(phase), canaryStep };
}

/** A transition in a few letters: the effects in order, or why not. */
function describeTransition(decided: Transition): string {
  return decided.kind === "go" ? decided.effects.map(effectText).join(", ") : decided.kind;
}

function effectText(effect: Effect): string {
  if (effect.do === "set")
    return `set ${effect.change.phase} ${effect.change.readsNew} ${effect.change.canaryStep}`;
  return effect.do === "flip" ? `${effect.kind} to ${effect.to}` : effect.do;
}

const UP: Record<Phase, string> = {
  off: "check, install, set dual-write 0 0",
  "dual-write": "plan-chunks, set backfill 0 0",
  backfill: "set verify 0 0, verify",
  verify: "set shadow 0 0",
  shadow: "set canary 0.01 1",
  canary: "set canary 0.25 2",
  "read-new": "flip to new",
  "write-new": "set done 1 0, teardown",
  done: "refused",
};

/** What `advance --to COLUMN` (above the diagonal) and `rollback --to COLUMN` (below it) do first in ROW. */
const TABLE: Record<Phase, Record<Phase, string>> = {
  off: row("off", {}),
  "dual-write": row("dual-write", { off: "set off 0 0, forget-chunks, uninstall" }),
  backfill: row("backfill", {
    off: "set off 0 0, forget-chunks, uninstall",
    "dual-write": "set dual-write 0 0, forget-chunks",
  }),
  verify: row("verify", {
    off: "set off 0 0, forget-chunks, uninstall",
    "dual-write": "set dual-write 0 0, forget-chunks",
    backfill: "set backfill 0 0",
  }),
  shadow: row("shadow", {
    off: "set off 0 0, forget-chunks, uninstall",
    "dual-write": "set dual-write 0 0, forget-chunks",
    backfill: "set backfill 0 0",
    verify: "set verify 0 0",
  }),
  canary: row("canary", {
    off: "set off 0 0, forget-chunks, uninstall",
    "dual-write": "set dual-write 0 0, forget-chunks",
    backfill: "set backfill 0 0",
    verify: "set verify 0 0",
    shadow: "set shadow 0 0",
  }),
  "read-new": row("read-new", {
    off: "set off 0 0, forget-chunks, uninstall",
    "dual-write": "set dual-write 0 0, forget-chunks",
    backfill: "set backfill 0 0",
    verify: "set verify 0 0",
    shadow: "set shadow 0 0",
    canary: "set canary 0.5 3",
  }),
  "write-new": row("write-new", {
    off: "rollback to old, set off 0 0, forget-chunks, uninstall",
    "dual-write": "rollback to old, set dual-write 0 0, forget-chunks",
    backfill: "rollback to old, set backfill 0 0",
    verify: "rollback to old, set verify 0 0",
    shadow: "rollback to old, set shadow 0 0",
    canary: "rollback to old, set canary 0.5 3",
    "read-new": "rollback to old",
  }),
  done: row(
    "done",
    Object.fromEntries(
      PHASES.filter((phase) => phase !== "done").map((phase) => [phase, "refused"]),
    ),
  ),
};

/** Every later phase begins with the same step up; staying stays. */
function row(from: Phase, down: Partial<Record<Phase, string>>): Record<Phase, string> {
  const cells = PHASES.map((to) => [to, down[to] ?? (to === from ? "stay" : UP[from])] as const);
  return Object.fromEntries(cells) as Record<Phase, string>;
}

describe.each(PHASES)("from %s", (from) => {
  test.each(PHASES)("to %s", (to) => {
    const kind = phaseIndex(to) < phaseIndex(from) ? "rollback" : "advance";
    expect(describeTransition(transition(state(from), { kind, to }, FACTS))).toBe(TABLE[from][to]);
  });

  test.each(PHASES)("the wrong word for %s is refused and names the right one", (to) => {
    if (to === from) return;
    const kind = phaseIndex(to) < phaseIndex(from) ? "advance" : "rollback";
    const decided = transition(state(from), { kind, to }, FACTS);
    const right = kind === "advance" ? "rollback" : "advance";
    expect(decided).toMatchObject({
      kind: "refused",
      hint: expect.stringContaining(right) as string,
    });
  });

  test("without a goal: the next phase, the phase before", () => {
    const up = transition(state(from), { kind: "advance" }, FACTS);
    const next = PHASES[phaseIndex(from) + 1];
    expect(describeTransition(up)).toBe(next === undefined ? "stay" : UP[from]);
    const before = PHASES[phaseIndex(from) - 1];
    const down = transition(state(from), { kind: "rollback" }, FACTS);
    expect(describeTransition(down)).toBe(before === undefined ? "stay" : TABLE[from][before]);
  });

  test("while a flip is undecided everything is refused", () => {
    const authority: Side = authorityIn(from) === "old" ? "new" : "old";
    for (const kind of ["advance", "rollback"] as const) {
      for (const to of [undefined, ...PHASES]) {
        const event = to === undefined ? { kind } : { kind, to };
        expect(transition({ ...state(from), authority }, event, FACTS).kind).toBe("refused");
      }
    }
  });

  test("a phase is set after what it needs and before what it leaves", () => {
    for (const event of [
      { kind: "advance" },
      { kind: "rollback" },
      { kind: "rollback", to: "off" },
    ] as const) {
      const decided = transition(state(from), event, FACTS);
      if (decided.kind !== "go") continue;
      const order = decided.effects.map((effect) => effect.do);
      const set = order.indexOf("set");
      for (const needed of ["check", "install", "plan-chunks", "flip"] as const) {
        if (order.includes(needed) && set >= 0) expect(order.indexOf(needed)).toBeLessThan(set);
      }
      for (const left of ["forget-chunks", "teardown", "uninstall", "verify"] as const) {
        if (order.includes(left)) expect(order.indexOf(left)).toBeGreaterThan(set);
      }
    }
  });
});

test("what is deferred is dropped last before the copy, and built last on the way down", () => {
  const facts = { ...FACTS, defer: true };
  const said = (from: Phase, kind: "advance" | "rollback", to: Phase) =>
    describeTransition(transition(state(from), { kind, to }, facts));
  expect(said("dual-write", "advance", "backfill")).toBe("plan-chunks, defer, set backfill 0 0");
  expect(said("verify", "rollback", "off")).toBe("set off 0 0, forget-chunks, uninstall, rebuild");
  expect(said("backfill", "rollback", "dual-write")).toBe(
    "set dual-write 0 0, forget-chunks, rebuild",
  );
  expect(said("shadow", "rollback", "backfill")).toBe("set backfill 0 0");
});

test("walking to done takes every phase and every canary step in order, and ends", () => {
  const path: string[] = [];
  let at = state("off");
  for (let steps = 0; steps < 50; steps += 1) {
    const decided = transition(at, { kind: "advance", to: "done" }, FACTS);
    if (decided.kind !== "go") break;
    at = decided.next;
    path.push(at.canaryStep === 0 ? at.phase : `${at.phase} ${at.canaryStep}`);
  }
  expect(path).toEqual([
    "dual-write",
    "backfill",
    "verify",
    "shadow",
    "canary 1",
    "canary 2",
    "canary 3",
    "read-new",
    "write-new",
    "done",
  ]);
});

test("a plan without canary steps passes canary with no reads moved", () => {
  const facts = { ...FACTS, canarySteps: [] };
  expect(describeTransition(transition(state("shadow"), { kind: "advance" }, facts))).toBe(
    "set canary 0 0",
  );
  expect(describeTransition(transition(state("canary", 0), { kind: "advance" }, facts))).toBe(
    "set read-new 1 0",
  );
});

test("in canary, asking for canary again changes nothing; asking for more goes on", () => {
  expect(transition(state("canary"), { kind: "advance", to: "canary" }, FACTS).kind).toBe("stay");
  expect(describeTransition(transition(state("canary", 3), { kind: "advance" }, FACTS))).toBe(
    "set read-new 1 0",
  );
});

test("without a reverse mapping there is no way back from write-new", () => {
  const facts = { ...FACTS, reverse: false };
  expect(transition(state("write-new"), { kind: "rollback" }, facts).kind).toBe("refused");
  expect(transition(state("read-new"), { kind: "rollback" }, facts).kind).toBe("go");
});

test("reads are answered by new exactly from read-new on", () => {
  expect(PHASES.filter((phase) => readsNewIn(phase) === 1)).toEqual([
    "read-new",
    "write-new",
    "done",
  ]);
});

test("a new leader finishes what off and done leave behind, and touches nothing else", () => {
  const left = Object.fromEntries(
    PHASES.map((phase) => [phase, reconcile(phase).map((effect) => effect.do)]),
  );
  expect(left).toMatchObject({ off: ["uninstall"], done: ["teardown"] });
  expect(PHASES.filter((phase) => left[phase]?.length === 0)).toHaveLength(PHASES.length - 2);
});
