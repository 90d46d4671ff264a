import type { MigrationChange } from "../store/control/migration.ts";
import { PHASES, phaseIndex } from "../config/words.ts";
import type { Phase, Side } from "../config/words.ts";

/** The phase machine: SPEC.md beside this file. Pure; effects are data that a runner executes (effects.ts). */

/** Where the migration stands, as far as transitions depend on it. */
export interface MachineState {
  readonly phase: Phase;
  readonly authority: Side;
  /** 1-based; 0 outside of canary. */
  readonly canaryStep: number;
}

export type MachineEvent =
  /** One step towards a later phase; in canary without `to`: the next canary step. */
  | { readonly kind: "advance"; readonly to?: Phase }
  /** Back to any earlier phase, at once. */
  | { readonly kind: "rollback"; readonly to?: Phase };

/** What of the plan the transitions depend on. */
export interface MachineFacts {
  /** Shares of canary, ascending. */
  readonly canarySteps: readonly number[];
  /** The plan has a reverse mapping. */
  readonly reverse: boolean;
  /** Indexes or foreign keys of new are dropped during the copy. */
  readonly defer: boolean;
}

/** One thing to do. Each can be repeated: after a crash the same event runs all of them again. */
export type Effect =
  /** Read both catalogs, compile the mappings, refuse what cannot work. Changes nothing. */
  | { readonly do: "check" }
  /** State rows, feeds, positions, guards on both sides. If it fails, what it made is removed. */
  | { readonly do: "install" }
  | { readonly do: "plan-chunks" }
  /** What `backfill.defer` names is written down and dropped on new. */
  | { readonly do: "defer" }
  /** What was dropped for the copy and is not there again is built. */
  | { readonly do: "rebuild" }
  | { readonly do: "forget-chunks" }
  /** Compare everything, repair, compare again, until a run is clean. */
  | { readonly do: "verify" }
  /** Change the migration row by compare-and-set. */
  | {
      readonly do: "set";
      readonly change: Readonly<Pick<MigrationChange, "phase" | "readsNew" | "canaryStep">>;
      /**
       * `next`: with an epoch of its own. The log goes with the uninstall, and the fences of the next one count from one again: in
       * the same epoch a sidecar would take them for passed.
       */
      readonly epoch?: "next";
    }
  /** Move the authority; records phase, authority and epoch itself, because it must be right even if it is interrupted. */
  | { readonly do: "flip"; readonly kind: "flip" | "rollback"; readonly to: Side }
  /** After done: feeds, mirror objects and new's guards go; old tables are renamed aside and keep their guard. */
  | { readonly do: "teardown" }
  /** Everything Crossfade installed on both sides goes. */
  | { readonly do: "uninstall" };

export type Transition =
  | {
      readonly kind: "go";
      /** Where the migration stands afterwards. */
      readonly next: MachineState;
      /** Whose gates must pass first. */
      readonly gates: { readonly for: "advance" | "rollback"; readonly phase: Phase };
      readonly effects: readonly Effect[];
    }
  | { readonly kind: "stay"; readonly why: string }
  | { readonly kind: "refused"; readonly why: string; readonly hint?: string };

/** Decides what an event does in a state. Total: every state and event has an answer. */
export function transition(
  state: MachineState,
  event: MachineEvent,
  facts: MachineFacts,
): Transition {
  if (authorityIn(state.phase) !== state.authority) {
    const why = `phase ${state.phase} has authority ${authorityIn(state.phase)}, but it is ${state.authority}: a flip was interrupted`;
    return {
      kind: "refused",
      why,
      hint: "The controller recovers it by itself; ask again when `crossfade status` shows it has.",
    };
  }
  return event.kind === "advance"
    ? advance(state, event.to, facts)
    : rollback(state, event.to, facts);
}

/** The side that takes writes in a phase. */
export function authorityIn(phase: Phase): Side {
  return phaseIndex(phase) >= phaseIndex("write-new") ? "new" : "old";
}

/** The phase after this one; undefined after the last. */
function phaseAfter(phase: Phase): Phase | undefined {
  return PHASES[phaseIndex(phase) + 1];
}

/** The phase before this one; undefined before the first. */
export function phaseBefore(phase: Phase): Phase | undefined {
  return PHASES[phaseIndex(phase) - 1];
}

function advance(state: MachineState, to: Phase | undefined, facts: MachineFacts): Transition {
  const next = phaseAfter(state.phase);
  if (next === undefined) {
    return to === undefined || to === state.phase
      ? { kind: "stay", why: "the migration is done" }
      : backwards(state.phase, to);
  }
  if (to === state.phase) return { kind: "stay", why: `phase is ${to} already` };
  if (to !== undefined && phaseIndex(to) < phaseIndex(state.phase))
    return backwards(state.phase, to);
  if (state.phase === "canary" && state.canaryStep < facts.canarySteps.length)
    return canaryStep(state, state.canaryStep + 1, facts);
  return enter(state, next, facts);
}

function backwards(from: Phase, to: Phase): Transition {
  return {
    kind: "refused",
    why: `${to} comes before ${from}`,
    hint: `Use \`crossfade rollback --to ${to}\`.`,
  };
}

/** One phase up. */
function enter(state: MachineState, phase: Phase, facts: MachineFacts): Transition {
  if (phase === "canary" && facts.canarySteps.length > 0) return canaryStep(state, 1, facts);
  const go = (effects: readonly Effect[]): Transition => ({
    kind: "go",
    next: { phase, authority: authorityIn(phase), canaryStep: 0 },
    gates: { for: "advance", phase },
    effects,
  });
  const set: Effect = { do: "set", change: { phase, readsNew: readsNewIn(phase), canaryStep: 0 } };
  switch (phase) {
    case "dual-write":
      return go([{ do: "check" }, { do: "install" }, set]);
    case "backfill":
      return go([{ do: "plan-chunks" }, ...(facts.defer ? [{ do: "defer" } as const] : []), set]);
    case "verify":
      return go([set, { do: "verify" }]);
    case "write-new":
      return go([{ do: "flip", kind: "flip", to: "new" }]);
    case "done":
      // The phase first: mirror and sidecars let go of what the teardown removes.
      return go([set, { do: "teardown" }]);
    case "off":
    case "shadow":
    case "canary":
    case "read-new":
      return go([set]);
  }
}

function canaryStep(state: MachineState, step: number, facts: MachineFacts): Transition {
  const readsNew = facts.canarySteps[step - 1] ?? 0;
  return {
    kind: "go",
    next: { phase: "canary", authority: state.authority, canaryStep: step },
    gates: { for: "advance", phase: "canary" },
    effects: [{ do: "set", change: { phase: "canary", readsNew, canaryStep: step } }],
  };
}

function rollback(state: MachineState, wanted: Phase | undefined, facts: MachineFacts): Transition {
  const to = wanted ?? phaseBefore(state.phase);
  if (to === undefined || to === state.phase)
    return { kind: "stay", why: `phase is ${state.phase} already` };
  if (phaseIndex(to) > phaseIndex(state.phase)) {
    return {
      kind: "refused",
      why: `${to} comes after ${state.phase}`,
      hint: `Use \`crossfade advance --to ${to}\`.`,
    };
  }
  if (state.phase === "done") {
    const hint =
      "The old tables are aside in schema crossfade_old; going back means restoring a backup.";
    return {
      kind: "refused",
      why: "from done there is no way back: nothing follows the old schema any more",
      hint,
    };
  }
  const flips = state.phase === "write-new";
  if (flips && !facts.reverse) {
    const hint = "Add `reverse:` to the plan before write-new to keep the way back.";
    return {
      kind: "refused",
      why: "the plan has no reverse mapping, so the old schema misses what was written since",
      hint,
    };
  }
  const canary = to === "canary" ? facts.canarySteps.length : 0;
  const readsNew = to === "canary" ? (facts.canarySteps.at(-1) ?? 0) : readsNewIn(to);
  const effects: Effect[] = [];
  // A flip back lands in read-new. Leaving it for an earlier phase is a second, quick change.
  if (flips) effects.push({ do: "flip", kind: "rollback", to: "old" });
  if (!flips || to !== "read-new")
    effects.push({
      do: "set",
      change: { phase: to, readsNew, canaryStep: canary },
      ...(to === "off" ? { epoch: "next" } : {}),
    });
  if (phaseIndex(to) < phaseIndex("backfill")) effects.push({ do: "forget-chunks" });
  if (to === "off") effects.push({ do: "uninstall" });
  // Last, because it may take long: nothing else waits for it.
  if (phaseIndex(to) < phaseIndex("backfill") && facts.defer) effects.push({ do: "rebuild" });
  return {
    kind: "go",
    next: { phase: to, authority: "old", canaryStep: canary },
    gates: { for: "rollback", phase: state.phase },
    effects,
  };
}

/** The share of reads that new answers in a phase; canary's comes from its steps. */
export function readsNewIn(phase: Phase): number {
  return phaseIndex(phase) >= phaseIndex("read-new") ? 1 : 0;
}

/** What a controller does on taking the lead, whatever its predecessor left half done. */
export function reconcile(phase: Phase): readonly Effect[] {
  if (phase === "off") return [{ do: "uninstall" }];
  if (phase === "done") return [{ do: "teardown" }];
  return [];
}
