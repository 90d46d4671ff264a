import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { clearChunks } from "../store/control/chunk-ledger.ts";
import { addEvent, addReceipt, useApprovals } from "../store/control/history.ts";
import type { Receipt } from "../store/control/history.ts";
import { readMigration, setMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import type { VerifyRun } from "../store/control/verify-runs.ts";
import type { Engine, LeadCheck } from "./engine.ts";
import { activeDirection } from "./gate-facts.ts";
import { describeRun } from "./data-gates.ts";
import { recordLeftBehind } from "./left-behind.ts";
import type { Gate } from "./gate-facts.ts";
import type { Effect } from "./machine.ts";

/** What executing effects needs. */
export interface Execution {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly engine: Engine;
  readonly log: Log;
  /** Throws STALE when this process does not lead any more. */
  readonly lead: LeadCheck;
  /** Aborted when the command is to stop: by a rollback, a shutdown, a lost lead. */
  readonly signal: AbortSignal;
  /** Aborted when this controller ends or loses the lead: the only thing that stops a flip between its decision and its end. */
  readonly ending: AbortSignal;
  /** Who asked. */
  readonly by: string;
  /** How the gates of the step stood: goes into the timeline with its change of phase. */
  readonly gates?: readonly Gate[];
}

/** Comparing and repairing in turns: live writes make a first run dirty, several in a row mean something is wrong. */
const VERIFY_RUNS = 5;

/** Executes one effect. Returns the receipt if it was a flip. */
export async function runEffect(
  execution: Execution,
  effect: Effect,
): Promise<Receipt | undefined> {
  const { engine, store, lead, signal, log } = execution;
  signal.throwIfAborted();
  await lead();
  log.debug({ effect }, `controller: ${effect.do}`);
  switch (effect.do) {
    case "check":
      await engine.check();
      return undefined;
    case "install":
      await installOrNothing(execution);
      return undefined;
    case "plan-chunks":
      await engine.planChunks("forward", signal);
      return undefined;
    case "defer":
      await defer(execution);
      return undefined;
    case "rebuild":
      await rebuild(execution);
      return undefined;
    case "forget-chunks":
      await clearChunks(store, "forward");
      return undefined;
    case "verify":
      await verifyUntilClean(execution);
      return undefined;
    case "set":
      await setPhase(execution, effect);
      return undefined;
    case "flip":
      return flip(execution, effect);
    case "teardown":
      await engine.teardown(lead);
      return undefined;
    case "uninstall":
      await engine.uninstall(lead);
      return undefined;
  }
}

/** A migration that fails half way leaves nothing of itself. */
async function installOrNothing({ engine, lead, log }: Execution): Promise<void> {
  try {
    await engine.install(lead);
  } catch (error) {
    await engine.uninstall(lead).catch((undo: unknown) => {
      log.error(
        { err: undo },
        `controller: what the failed install left could not be removed: ${messageOf(undo)}`,
      );
    });
    throw error;
  }
}

/** Never while new answers reads: without its indexes they would be slow. */
async function defer({ engine, store, signal }: Execution): Promise<void> {
  const { phase, readsNew } = await readMigration(store);
  if (readsNew > 0 || phase !== "dual-write")
    throw new CrossfadeError(
      "REFUSED",
      `backfill.defer drops nothing in phase ${phase}: new may answer reads`,
      { hint: "`crossfade rollback --to dual-write` first." },
    );
  await engine.defer(signal);
}

/** Throws FAILED naming what cannot be built; what can is. */
async function rebuild({ engine, signal }: Execution): Promise<void> {
  const missing = await engine.rebuild(signal);
  if (missing.length === 0) return;
  const names = missing.map(
    ({ kind, table, name, error }) => `${kind} ${name} of ${table}: ${error ?? "not built yet"}`,
  );
  throw new CrossfadeError(
    "FAILED",
    `what was dropped for the copy is not all back on new:\n${names.map((name) => `  ${name}`).join("\n")}`,
    {
      hint: "The controller goes on trying. Remove the reason, or make one of that name yourself: it is then left as you made it.",
    },
  );
}

async function setPhase(
  execution: Execution,
  { change, epoch }: Extract<Effect, { do: "set" }>,
): Promise<Migration> {
  const { store, by } = execution;
  const before = await readMigration(store);
  if (change.phase === "done") await recordLeftBehind(execution, activeDirection(before));
  const after = await setMigration(
    store,
    { phase: before.phase, epoch: before.epoch, version: before.version },
    {
      ...change,
      ...(epoch === "next" ? { epoch: before.epoch + 1 } : {}),
      // What was missed goes with everything else that was mirrored.
      ...(change.phase === "off" ? { gap: null } : {}),
    },
  );
  await recordPhase(execution, before, after, by);
  return after;
}

async function recordPhase(
  { store, log, gates = [] }: Execution,
  before: Migration,
  after: Migration,
  by: string,
): Promise<void> {
  const detail = {
    from: before.phase,
    to: after.phase,
    reads_new: after.readsNew,
    canary_step: after.canaryStep,
  };
  await addEvent(store, {
    kind: "phase",
    by,
    detail: gates.length === 0 ? detail : { ...detail, gates },
  });
  if (before.phase !== after.phase) await useApprovals(store, after.phase);
  log.info(
    detail,
    `phase ${before.phase} → ${after.phase}${after.phase === "canary" ? ` (${after.readsNew * 100} % of reads)` : ""}`,
  );
}

async function flip(
  execution: Execution,
  effect: Extract<Effect, { do: "flip" }>,
): Promise<Receipt | undefined> {
  const { store, by, log } = execution;
  const before = await readMigration(store);
  let receipt: Receipt | undefined;
  try {
    receipt = await recordedFlip(execution, { kind: effect.kind, to: effect.to });
  } catch (error) {
    if (!(error instanceof CrossfadeError && error.code === "FLIP_UNKNOWN")) throw error;
    log.error({}, `controller: ${error.message}; recovering`);
    await recoverUntilKnown(execution);
  }
  const after = await readMigration(store);
  if (after.authority !== effect.to)
    throw new CrossfadeError("FLIP_UNDONE", `the ${effect.kind} was interrupted and undone`);
  await recordPhase(execution, before, after, by);
  return receipt;
}

/** After a decision only forward, however long it takes: no side takes writes until it is known what happened. */
async function recoverUntilKnown({
  engine,
  store,
  lead,
  ending,
  log,
  by,
}: Execution): Promise<void> {
  for (;;) {
    await lead();
    try {
      const recovery = await engine.recover(ending);
      await addEvent(store, { kind: "recovery", by, detail: { ...recovery } });
      return;
    } catch (error) {
      log.error({ err: error }, `controller: recovery: ${messageOf(error)}; trying again`);
    }
    ending.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** Runs a flip or a drill and keeps its receipt, also of one that was undone. Throws FLIP_UNDONE if it was. */
export async function recordedFlip(
  { engine, store, by, ending, signal }: Execution,
  request: { readonly kind: "flip" | "rollback" | "drill"; readonly to: Migration["authority"] },
): Promise<Receipt> {
  const receipt = await engine.flip({ ...request, by, signal: ending, calledOff: signal });
  await addReceipt(store, receipt);
  await addEvent(store, { kind: receipt.kind, by, detail: { ...receipt } });
  if (receipt.ok) return receipt;
  throw new CrossfadeError(
    "FLIP_UNDONE",
    `the ${receipt.kind} was undone: ${receipt.why ?? "no reason given"}`,
    {
      hint: "Nothing moved and no write was refused. `crossfade status` shows the receipt; try again when its reason is gone.",
    },
  );
}

/** Compares, repairs and compares again until a whole run is clean. Throws FAILED with the counts if none is. */
export async function verifyUntilClean(execution: Execution): Promise<VerifyRun> {
  const { engine, store, by, signal, log } = execution;
  const direction = activeDirection(await readMigration(store));
  let run: VerifyRun | undefined;
  for (let attempt = 1; attempt <= VERIFY_RUNS; attempt += 1) {
    signal.throwIfAborted();
    run = await engine.verify({ direction, tables: undefined, repair: true, by, signal });
    await addEvent(store, {
      kind: "verify",
      by,
      detail: {
        run: run.id,
        state: run.state,
        rows: run.rows,
        differences: describeRun(run),
        why: run.error ?? null,
      },
    });
    if (run.state === "clean") return run;
    if (run.state === "failed") break;
    log.info({ run: run.id }, `verify: ${describeRun(run)}; repaired, comparing again`);
  }
  const found = run === undefined ? "" : (run.error ?? describeRun(run));
  throw new CrossfadeError("FAILED", `verify is not clean: ${found}`, {
    hint: "`crossfade verify` shows which rows; `crossfade quarantine list` those left behind.",
  });
}
