import { CrossfadeError } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Phase } from "../config/words.ts";
import type { Receipt } from "../store/control/history.ts";
import { readMigration, setMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import { backupBefore } from "./backup-before.ts";
import { runEffect, verifyUntilClean } from "./effects.ts";
import type { Execution } from "./effects.ts";
import { gateLimits, gatherFacts, machineFacts } from "./facts.ts";
import { ROLLBACK_GATES_OF, blocks, describeGate, evaluateGates, gatesInto } from "./gates.ts";
import type { Gate, GateFacts, GateResult } from "./gate-facts.ts";
import { healGap } from "./heal-gap.ts";
import { runHooks } from "./hooks.ts";
import type { Unmirrored } from "./lose-unmirrored.ts";
import { transition } from "./machine.ts";
import type { CopyEstimate } from "./room-gate.ts";
import type { StepSql } from "./step-sql.ts";
import type { Effect, MachineEvent, MachineState, Transition } from "./machine.ts";

/** Walking phases: transitions one after the other, each behind its gates. */

/** Where the migration stands, as a person sees it before deciding. */
export interface Standing {
  readonly phase: Phase;
  /** 0 outside of canary. */
  readonly canary_step: number;
  readonly epoch: number;
}

export interface WalkOptions {
  readonly to: Phase | undefined;
  /** Where the migration stood when this was decided; without it, decided wherever it stands. */
  readonly from?: Standing | undefined;
  /** Wait for gates that time (or a verify run) may open. */
  readonly wait: boolean;
  readonly dryRun: boolean;
  /** Going to write-new without a reverse mapping is confirmed. */
  readonly noWayBack?: boolean;
  /** Going back although rows written on new do not survive it as they are is confirmed. */
  readonly acceptRoundTrip?: boolean;
}

export interface WalkStep {
  readonly from: Phase;
  readonly to: Phase;
  readonly canary_step?: number;
  /** With --dry-run: what stands in the way, and what it would do. */
  readonly gates?: readonly Gate[];
  readonly effects?: readonly Effect[];
  /** What these would execute on the two databases, as they stand now. */
  readonly sql?: readonly StepSql[];
  /** With --dry-run, of the step into backfill: what the copy will take, or why that is not known. */
  readonly estimates?: CopyEstimate;
}

export interface WalkResult extends Standing {
  readonly steps: readonly WalkStep[];
  readonly receipt: Receipt | null;
  /** With --lose-unmirrored: what is given up. */
  readonly lost?: Unmirrored;
  readonly why?: string;
}

/** Gates without data right after a change of phase: processes need a moment to report, also for callers that do not wait. */
const SETTLE_MS = 5_000;
const POLL_MS = 200;

/** A gate said no. `gates` are all of the step's gates. */
export class GatesRefused extends CrossfadeError {
  readonly gates: readonly Gate[];

  constructor(goal: string, results: readonly GateResult[]) {
    const blocking = results.filter(blocks);
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
  refuseStale(await readMigration(execution.store), options.from);
  for (;;) {
    const migration = await readMigration(execution.store);
    const decided = transition(migration, event, machineFacts(execution.plan));
    if (decided.kind === "stay")
      return result(migration, steps, receipt, steps.length === 0 ? decided.why : undefined);
    const go = orRefused(decided);
    const copy = startsCopy(go.next) && execution.plan.backfill.diskFreeBytes !== undefined;
    const gates = () =>
      passGates(execution, `advance to ${go.next.phase}`, { ...options, copy }, (facts) =>
        gatesInto(go.next.phase, facts, gateLimits(execution.plan)),
      );
    let passed = await gates();
    if (go.next.phase !== migration.phase && (await backupBefore(execution, go.next.phase)))
      passed = await gates();
    if (go.next.phase === "write-new" && options.noWayBack === true)
      await confirmNoWayBack(execution, migration);
    const passage = { from: migration.phase, to: go.next.phase, kind: "advance" } as const;
    await runHooks(execution, "before", passage);
    receipt = (await runEffects({ ...execution, gates: passed }, go.effects)) ?? receipt;
    await runHooks(execution, "after", passage);
    steps.push(stepOf(migration, go.next));
    // Without a goal, one step; in canary also from step to step.
    if (options.to === undefined)
      return result(await readMigration(execution.store), steps, receipt);
  }
}

/**
 * Two people who looked at the same dry run and both confirm: the second must not go one step further than it showed. Long
 * commands run one at a time, so what is read here still holds when the first step is taken.
 */
function refuseStale(migration: Migration, from: Standing | undefined): void {
  const { phase, canaryStep: canary_step, epoch } = migration;
  if (from === undefined) return;
  if (from.phase === phase && from.canary_step === canary_step && from.epoch === epoch) return;
  throw new CrossfadeError(
    "REFUSED",
    `this was decided ${standing(from)}, but the migration is ${standing({ phase, canary_step, epoch })}`,
    { hint: "Somebody else has moved it. Look at where it stands now, then decide again." },
  );
}

function standing({ phase, canary_step, epoch }: Standing): string {
  return `in ${phase}${phase === "canary" ? ` step ${canary_step}` : ""} (epoch ${epoch})`;
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
  const gates =
    names.length === 0
      ? []
      : await passGates(execution, `rollback to ${go.next.phase}`, options, (facts) =>
          evaluateGates(names, migration.phase, facts, gateLimits(execution.plan)),
        );
  const passage = { from: migration.phase, to: go.next.phase, kind: "rollback" } as const;
  await runHooks(execution, "before", passage);
  const receipt = await runEffects({ ...execution, gates }, go.effects);
  await runHooks(execution, "after", passage);
  return result(
    await readMigration(execution.store),
    [stepOf(migration, go.next)],
    receipt ?? null,
  );
}

/** Waits for gates as far as the options allow, and returns how they stood; throws GatesRefused. */
export async function passGates(
  execution: Execution,
  goal: string,
  options: Pick<WalkOptions, "wait" | "noWayBack" | "acceptRoundTrip"> & {
    readonly copy?: boolean;
  },
  evaluate: (facts: GateFacts) => GateResult[],
): Promise<readonly Gate[]> {
  const { store, engine, signal, log } = execution;
  const started = performance.now();
  let said = "";
  for (;;) {
    signal.throwIfAborted();
    const results = evaluate(await gatherFacts(store, engine, options));
    const blocking = results.filter(blocks);
    if (blocking.length === 0) return results.map(withoutHeals);
    if (!mayWait(blocking, options.wait, performance.now() - started))
      throw new GatesRefused(goal, results);
    const why = blocking.map((gate) => gate.name).join(", ");
    if (why !== said)
      log.info({ gates: blocking.map(withoutHeals) }, `${goal}: waiting for ${why}`);
    said = why;
    const migration = await readMigration(store);
    // While this waits nobody else does the controller's own work.
    if (options.wait && migration.gap !== undefined && !migration.paused.mirror)
      await healGap(execution, migration);
    else if (options.wait && blocking.every((gate) => gate.heals === "by-verify"))
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

function startsCopy({ phase }: Pick<MachineState, "phase">): boolean {
  return phase === "backfill";
}

/** Whether one of the steps that an event leads to begins the copy. */
function reachesCopy(from: MachineState, event: MachineEvent, plan: Plan): boolean {
  for (let state = from; ;) {
    const decided = transition(state, event, machineFacts(plan));
    if (decided.kind !== "go") return false;
    if (startsCopy(decided.next)) return true;
    if (event.to === undefined) return false;
    state = decided.next;
  }
}

/** What would happen, step by step: gates as they stand now for each. */
async function dryRun(
  execution: Execution,
  event: MachineEvent,
  options: WalkOptions,
): Promise<WalkResult> {
  const { store, engine } = execution;
  const before = await readMigration(store);
  const copy = event.kind === "advance" && reachesCopy(before, event, execution.plan);
  const facts = await gatherFacts(store, engine, { ...options, copy });
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
      ...(startsCopy(go.next) && facts.copy !== undefined ? { estimates: facts.copy } : {}),
      gates: results.map(withoutHeals),
      effects: go.effects,
      sql: (await Promise.all(go.effects.map((effect) => execution.engine.sqlOf(effect)))).flat(),
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
    canary_step: migration.canaryStep,
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
