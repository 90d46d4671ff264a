import { CrossfadeError } from "../config/errors.ts";
import type { Phase } from "../config/words.ts";
import type { Receipt } from "../store/control/history.ts";
import { readMigration, setMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import { backupBefore } from "./backup-before.ts";
import { runEffect, verifyUntilClean } from "./effects.ts";
import type { Execution } from "./effects.ts";
import { gateLimits, gatherFacts, machineFacts } from "./facts.ts";
import { ROLLBACK_GATES_OF, describeGate, evaluateGates, gatesInto } from "./gates.ts";
import type { Gate, GateFacts, GateResult } from "./gates.ts";
import { runHooks } from "./hooks.ts";
import { transition } from "./machine.ts";
import type { Effect, MachineEvent, MachineState, Transition } from "./machine.ts";

/** Walking phases: transitions one after the other, each behind its gates. */

export interface WalkOptions {
  readonly to: Phase | undefined;
  /** Wait for gates that time (or a verify run) may open. */
  readonly wait: boolean;
  readonly dryRun: boolean;
  /** Going to write-new without a reverse mapping is confirmed. */
  readonly noWayBack: boolean;
}

export interface WalkStep {
  readonly from: Phase;
  readonly to: Phase;
  readonly canary_step?: number;
  /** With --dry-run: what stands in the way, and what it would do. */
  readonly gates?: readonly Gate[];
  readonly effects?: readonly Effect[];
}

export interface WalkResult {
  readonly phase: Phase;
  readonly epoch: number;
  readonly steps: readonly WalkStep[];
  readonly receipt: Receipt | null;
  readonly why?: string;
}

/** Gates without data right after a change of phase: processes need a moment to report, also for callers that do not wait. */
const SETTLE_MS = 5_000;
const POLL_MS = 200;

/** A gate said no. `gates` are all of the step's gates. */
export class GatesRefused extends CrossfadeError {
  readonly gates: readonly Gate[];

  constructor(goal: string, results: readonly GateResult[]) {
    const blocking = results.filter((gate) => gate.state !== "pass");
    const healing = blocking.filter((gate) => gate.heals !== "never").map((gate) => gate.name);
    super(
      "REFUSED",
      `${goal} is refused:\n${blocking.map((gate) => `  ${describeGate(gate)}`).join("\n")}`,
      {
        hint:
          healing.length === blocking.length
            ? `\`--wait\` waits for ${healing.join(", ")}.`
            : "`crossfade status` shows every gate.",
      },
    );
    this.name = "GatesRefused";
    this.gates = results.map(withoutHeals);
  }
}

export function withoutHeals({ name, state, value, limit, samples, why }: GateResult): Gate {
  return { name, state, value, limit, ...(samples === undefined ? {} : { samples }), why };
}

/** `advance`: steps towards `to` (or one), each behind its gates. */
export async function advance(execution: Execution, options: WalkOptions): Promise<WalkResult> {
  const event: MachineEvent =
    options.to === undefined ? { kind: "advance" } : { kind: "advance", to: options.to };
  if (options.dryRun) return dryRun(execution, event, options);
  const steps: WalkStep[] = [];
  let receipt: Receipt | null = null;
  for (;;) {
    const migration = await readMigration(execution.store);
    const decided = transition(migration, event, machineFacts(execution.plan));
    if (decided.kind === "stay")
      return result(migration, steps, receipt, steps.length === 0 ? decided.why : undefined);
    const go = orRefused(decided);
    const gates = () =>
      passGates(execution, `advance to ${go.next.phase}`, options, (facts) =>
        gatesInto(go.next.phase, facts, gateLimits(execution.plan)),
      );
    await gates();
    if (go.next.phase !== migration.phase && (await backupBefore(execution, go.next.phase)))
      await gates();
    if (go.next.phase === "write-new" && options.noWayBack)
      await confirmNoWayBack(execution, migration);
    const passage = { from: migration.phase, to: go.next.phase, kind: "advance" } as const;
    await runHooks(execution, "before", passage);
    receipt = (await runEffects(execution, go.effects)) ?? receipt;
    await runHooks(execution, "after", passage);
    steps.push(stepOf(migration, go.next));
    // Without a goal, one step; in canary also from step to step.
    if (options.to === undefined)
      return result(await readMigration(execution.store), steps, receipt);
  }
}

/** `rollback`: back to an earlier phase at once. */
export async function rollback(execution: Execution, options: WalkOptions): Promise<WalkResult> {
  const event: MachineEvent =
    options.to === undefined ? { kind: "rollback" } : { kind: "rollback", to: options.to };
  if (options.dryRun) return dryRun(execution, event, options);
  const migration = await readMigration(execution.store);
  const decided = transition(migration, event, machineFacts(execution.plan));
  if (decided.kind === "stay") return result(migration, [], null, decided.why);
  const go = orRefused(decided);
  const names = ROLLBACK_GATES_OF[migration.phase];
  if (names.length > 0) {
    await passGates(execution, `rollback to ${go.next.phase}`, options, (facts) =>
      evaluateGates(names, migration.phase, facts, gateLimits(execution.plan)),
    );
  }
  const passage = { from: migration.phase, to: go.next.phase, kind: "rollback" } as const;
  await runHooks(execution, "before", passage);
  const receipt = await runEffects(execution, go.effects);
  await runHooks(execution, "after", passage);
  return result(
    await readMigration(execution.store),
    [stepOf(migration, go.next)],
    receipt ?? null,
  );
}

/** Waits for gates as far as the options allow; throws GatesRefused. */
export async function passGates(
  execution: Execution,
  goal: string,
  options: Pick<WalkOptions, "wait" | "noWayBack">,
  evaluate: (facts: GateFacts) => GateResult[],
): Promise<void> {
  const { store, engine, signal, log } = execution;
  const started = performance.now();
  let said = "";
  for (;;) {
    signal.throwIfAborted();
    const results = evaluate(await gatherFacts(store, engine, options.noWayBack));
    const blocking = results.filter((gate) => gate.state !== "pass");
    if (blocking.length === 0) return;
    if (!mayWait(blocking, options.wait, performance.now() - started))
      throw new GatesRefused(goal, results);
    const why = blocking.map((gate) => gate.name).join(", ");
    if (why !== said)
      log.info({ gates: blocking.map(withoutHeals) }, `${goal}: waiting for ${why}`);
    said = why;
    if (options.wait && blocking.every((gate) => gate.heals === "by-verify"))
      await verifyUntilClean(execution);
    else await sleep(POLL_MS, signal);
  }
}

function mayWait(blocking: readonly GateResult[], wait: boolean, waitedMs: number): boolean {
  if (wait) return blocking.every((gate) => gate.heals !== "never");
  return (
    waitedMs < SETTLE_MS &&
    blocking.every((gate) => gate.state === "unknown" && gate.heals === "by-waiting")
  );
}

async function runEffects(
  execution: Execution,
  effects: readonly Effect[],
): Promise<Receipt | undefined> {
  let receipt: Receipt | undefined;
  for (const effect of effects) receipt = (await runEffect(execution, effect)) ?? receipt;
  return receipt;
}

async function confirmNoWayBack({ store }: Execution, { phase, epoch }: Migration): Promise<void> {
  await setMigration(store, { phase, epoch }, { noWayBack: true });
}

/** What would happen, step by step: gates as they stand now for each. */
async function dryRun(
  execution: Execution,
  event: MachineEvent,
  options: WalkOptions,
): Promise<WalkResult> {
  const facts = await gatherFacts(execution.store, execution.engine, options.noWayBack);
  const limits = gateLimits(execution.plan);
  const steps: WalkStep[] = [];
  let state: MachineState = facts.migration;
  for (;;) {
    const decided = transition(state, event, machineFacts(execution.plan));
    if (decided.kind === "stay") break;
    const go = orRefused(decided);
    const results =
      event.kind === "advance"
        ? gatesInto(go.next.phase, facts, limits, {
            phase: state.phase,
            // Of a later step it is not known when it will be left.
            sinceMs: steps.length === 0 ? facts.inPhaseMs : 0,
          })
        : evaluateGates(ROLLBACK_GATES_OF[state.phase], state.phase, facts, limits);
    steps.push({
      ...stepOf(state, go.next),
      gates: results.map(withoutHeals),
      effects: go.effects,
    });
    state = go.next;
    if (event.to === undefined) break;
  }
  return result(facts.migration, steps, null);
}

function orRefused(
  decided: Exclude<Transition, { kind: "stay" }>,
): Extract<Transition, { kind: "go" }> {
  if (decided.kind === "go") return decided;
  throw new CrossfadeError(
    "REFUSED",
    decided.why,
    decided.hint === undefined ? {} : { hint: decided.hint },
  );
}

function stepOf(from: MachineState, next: MachineState): WalkStep {
  return {
    from: from.phase,
    to: next.phase,
    ...(next.phase === "canary" ? { canary_step: next.canaryStep } : {}),
  };
}

function result(
  migration: Migration,
  steps: readonly WalkStep[],
  receipt: Receipt | null,
  why?: string,
): WalkResult {
  return {
    phase: migration.phase,
    epoch: migration.epoch,
    steps,
    receipt,
    ...(why === undefined ? {} : { why }),
  };
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
