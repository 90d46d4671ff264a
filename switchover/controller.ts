import { CrossfadeError, messageOf } from "../config/errors.ts";
import { RunningState } from "../config/lifecycle.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import {
  claimCommand,
  failOrphanedCommands,
  finishCommand,
  isLossQueued,
  isQueued,
} from "../store/control/commands.ts";
import type { Command, CommandError } from "../store/control/commands.ts";
import { addEvent } from "../store/control/history.ts";
import type { Listener } from "../store/control/listen.ts";
import { readMigration } from "../store/control/migration.ts";
import type { Migration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { forgetSidecars } from "../store/control/sidecars.ts";
import { beatWorker, forgetWorkers, removeWorker } from "../store/control/workers.ts";
import { executeRequest } from "./commands.ts";
import { runEffect } from "./effects.ts";
import type { Execution } from "./effects.ts";
import type { Engine } from "./engine.ts";
import { tryLead } from "./lead.ts";
import type { Lead } from "./lead.ts";
import { reconcile } from "./machine.ts";
import { bringInOrder, ownWork } from "./own-work.ts";
import type { OwnWork } from "./own-work.ts";
import { gatherFacts } from "./facts.ts";
import type { Recovery } from "./flip-types.ts";
import { goBack } from "./go-back.ts";
import { Notifier } from "./notifier.ts";
import { Watchdog } from "./watchdog.ts";
import { LONG, QUICK } from "./requests.ts";
import { RetainedWalWatch } from "./retained-wal.ts";
import { GatesRefused } from "./walk.ts";

export interface ControllerOptions {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly engine: Engine;
  readonly listener: Listener;
  readonly log: Log;
  /** Before the second try of a webhook. */
  readonly retryMs?: number;
  /** Of the commands that take long only this one is begun: a controller that ends with it must not take another's along. */
  readonly only?: number;
}

/** What runs in the long lane: a command, or the controller's own work for a phase. */
interface Work {
  readonly name: string;
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

const TICK_MS = 500;
/** A sidecar or worker that was not seen for this long is forgotten. The guard keeps a sidecar from the wrong side. */
const FORGET_MS = 30_000;
/** Sidecars report once a second. */
const WATCH_MS = 1_000;
/** Between two tries of the controller's own work, e.g. a verify that does not come clean. */
const AGAIN_MS = 10_000;
/** Between two looks whether the sides agree about the authority. */
const LOOK_MS = 5_000;

/**
 * The controller: one leads, by a session lock; the others wait. The leader finishes what its predecessor left, executes
 * commands (long ones one at a time, short ones beside them, and a rollback stops whatever else runs), and does what the
 * phase asks for: plan chunks in backfill, compare in verify.
 */
export class Controller {
  readonly #options: ControllerOptions;
  readonly #running: RunningState;
  readonly #id: string;
  #leading = false;
  #work: Work | undefined;
  #ownWorkAfter = 0;
  #lookAfter = performance.now() + LOOK_MS;
  readonly #watchdog: Watchdog | undefined;
  #watchAfter = 0;
  readonly #retained = new RetainedWalWatch();
  #done: Promise<void> | undefined;

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.#id = `control:${options.store.instance}`;
    const { rollbackOn } = options.plan.policy;
    this.#watchdog = rollbackOn === undefined ? undefined : new Watchdog(rollbackOn);
    this.#running = new RunningState({ name: "controller", log: options.log });
  }

  get leading(): boolean {
    return this.#leading;
  }

  /** Starts the loop; once. */
  start(): void {
    this.#done ??= this.#run();
  }

  /** Stops what runs (a flip ends first) and gives up the lead. */
  async stop(): Promise<void> {
    this.#running.stop();
    this.#work?.abort.abort(stopped());
    await this.#done;
  }

  async #run(): Promise<void> {
    const { listener } = this.#options;
    const off = listener.on((message) => message.t === "command" && this.#running.wake());
    while (this.#running.shouldRun()) {
      let failure: unknown;
      try {
        await this.#tryToLead();
      } catch (error) {
        failure = error;
      }
      if (failure === undefined) await this.#running.sleep(TICK_MS);
      else await this.#running.backoff(failure);
    }
    off();
  }

  async #tryToLead(): Promise<void> {
    const { store, log } = this.#options;
    const lead = await tryLead(store, log);
    if (lead === undefined) return;
    let notifier: Notifier | undefined;
    try {
      this.#leading = true;
      log.info({ controller: this.#id }, "controller: leading");
      await this.#takeOver(lead);
      notifier = new Notifier(this.#options);
      while (this.#running.shouldRun()) {
        await lead.check();
        this.#running.healthy();
        await this.#tick(lead);
        await this.#running.sleep(TICK_MS);
      }
    } finally {
      this.#leading = false;
      // Begun, perhaps, when it was to stop already.
      const why = this.#running.shouldRun() ? noLongerLeading() : stopped();
      this.#work?.abort.abort(lead.signal.reason ?? why);
      await this.#work?.done;
      this.#work = undefined;
      await this.#retained.idle();
      await notifier?.stop();
      await lead.release();
      await removeWorker(store, this.#id).catch(() => {});
    }
  }

  /** Finishes what a predecessor left: an interrupted flip first, for nothing else may move before it is decided. */
  async #takeOver(lead: Lead): Promise<void> {
    const { store, log } = this.#options;
    const { phase } = await readMigration(store);
    if (phase !== "off" && phase !== "done") {
      const recovery = await this.#recover(AbortSignal.any([lead.signal, this.#running.signal]));
      if (recovery !== undefined && recovery.outcome !== "settled") {
        await addEvent(store, { kind: "recovery", by: "controller", detail: { ...recovery } });
        log.warn({ recovery }, `controller: an interrupted flip was ${recovery.outcome}`);
      }
    }
    const now = await readMigration(store);
    const orphaned: CommandError = {
      code: "FAILED",
      message: `the controller that executed this ended before it was done; the migration stands at ${now.phase}`,
      hint: "Look at `crossfade status`, then ask again.",
    };
    await failOrphanedCommands(store, orphaned);
    // A row nobody has ever changed is no proof that nothing is installed: it may replace a control store that was lost.
    if (now.version === 1) return;
    for (const effect of reconcile(now.phase))
      await runEffect(this.#execution(lead, lead.signal, "controller"), effect);
  }

  /** While a database is away nobody can recover; only who gives up new goes on without (a flip needs both anyway). */
  async #recover(signal: AbortSignal): Promise<Recovery | undefined> {
    try {
      return await this.#options.engine.recover(signal);
    } catch (error) {
      if (!(await isLossQueued(this.#options.store))) throw error;
      this.#options.log.error({ err: error }, `controller: not recovered: ${messageOf(error)}`);
      return undefined;
    }
  }

  async #tick(lead: Lead): Promise<void> {
    const { store } = this.#options;
    for (
      let quick = await claimCommand(store, QUICK);
      quick !== undefined;
      quick = await claimCommand(store, QUICK)
    ) {
      await this.#execute(lead, quick, lead.signal);
    }
    await this.#watch();
    if (this.#work === undefined) await this.#startWork(lead);
    else if (await this.#mustYield(this.#work))
      this.#work.abort.abort(new CrossfadeError("FAILED", "stopped: a rollback was asked for"));
    const doing = this.#work === undefined ? {} : { doing: this.#work.name };
    await beatWorker(store, { id: this.#id, role: "control", stats: { leading: true, ...doing } });
    for (const id of await forgetSidecars(store, FORGET_MS))
      await addEvent(store, { kind: "sidecar-lost", by: "controller", detail: { id } });
    await forgetWorkers(store, FORGET_MS);
    const { plan, log } = this.#options;
    this.#retained.tick({ plan, store, log, lead: lead.check });
  }

  /** The controller's own work yields to every command; a command only to a rollback. */
  async #mustYield(work: Work): Promise<boolean> {
    const { store } = this.#options;
    if (work.name === "rollback") return false;
    return isQueued(store, work.name.startsWith("phase ") ? LONG : ["rollback"]);
  }

  /** Goes back by itself when the plan's triggers say so, also while a command waits: a rollback stops what waits. */
  async #watch(): Promise<void> {
    const { plan, store, engine, log } = this.#options;
    if (this.#watchdog === undefined || performance.now() < this.#watchAfter) return;
    this.#watchAfter = performance.now() + WATCH_MS;
    const trigger = this.#watchdog.observe(
      await gatherFacts(store, engine, { servers: false }),
      performance.now(),
    );
    if (trigger !== undefined) await goBack({ store, plan, log }, trigger);
  }

  async #startWork(lead: Lead): Promise<void> {
    const { store, only } = this.#options;
    // A rollback goes before what was asked earlier.
    const command =
      (await claimCommand(store, ["rollback"], only)) ?? (await claimCommand(store, LONG, only));
    if (command !== undefined) {
      this.#begin(lead, command.kind, (signal) => this.#execute(lead, command, signal));
      return;
    }
    if (performance.now() < this.#ownWorkAfter) return;
    const migration = await readMigration(this.#options.store);
    const own =
      (await this.#disagreement(migration)) ??
      (await ownWork(this.#options.store, this.#options.engine, this.#options.plan, migration));
    if (own === undefined) return;
    this.#begin(lead, `phase ${migration.phase}`, async (signal) => {
      try {
        await own(this.#execution(lead, signal, "controller"));
      } catch (error) {
        // What made way for a command goes on right after it.
        if (signal.aborted) return;
        this.#ownWorkAfter = performance.now() + AGAIN_MS;
        this.#options.log.warn(
          { err: error },
          `controller: ${migration.phase}: ${messageOf(error)}`,
        );
      }
    });
  }

  /** A side that came back from a failover or a restore, or was given up while it was away: looked for now and then. */
  async #disagreement({ phase }: Migration): Promise<OwnWork | undefined> {
    if (phase === "off" || phase === "done" || performance.now() < this.#lookAfter) return;
    this.#lookAfter = performance.now() + LOOK_MS;
    return (await this.#options.engine.inOrder()) === false ? bringInOrder : undefined;
  }

  #begin(lead: Lead, name: string, work: (signal: AbortSignal) => Promise<void>): void {
    const abort = new AbortController();
    const signal = AbortSignal.any([abort.signal, lead.signal]);
    const done = work(signal)
      .catch((error: unknown) =>
        this.#options.log.error({ err: error }, `controller: ${name}: ${messageOf(error)}`),
      )
      .finally(() => {
        this.#work = undefined;
        this.#running.wake();
      });
    this.#work = { name, abort, done };
  }

  async #execute(lead: Lead, command: Command, signal: AbortSignal): Promise<void> {
    const { store, log } = this.#options;
    log.info(
      { command: command.id, kind: command.kind, by: command.by },
      `controller: ${command.kind}`,
    );
    try {
      const result = await executeRequest(this.#execution(lead, signal, command.by), command);
      await finishCommand(store, command.id, { result });
    } catch (error) {
      const reason = signal.aborted ? (signal.reason as unknown) : error;
      log.warn(
        { command: command.id, kind: command.kind },
        `controller: ${command.kind}: ${messageOf(reason)}`,
      );
      await addEvent(store, {
        kind: "refused",
        by: command.by,
        detail: { command: command.kind, why: messageOf(reason) },
      }).catch(() => {});
      await finishCommand(store, command.id, { error: toCommandError(reason) });
    }
  }

  #execution(lead: Lead, signal: AbortSignal, by: string): Execution {
    const { plan, store, engine, log } = this.#options;
    const ending = AbortSignal.any([lead.signal, this.#running.signal]);
    return { plan, store, engine, log, lead: lead.check, signal, ending, by };
  }
}

function noLongerLeading(): CrossfadeError {
  return new CrossfadeError("STALE", "this controller does not lead any more");
}

function stopped(): CrossfadeError {
  return new CrossfadeError("FAILED", "the controller was stopped before this was done", {
    hint: "Ask again: it goes on from where the migration stands (`crossfade status`).",
  });
}

/** An error as the control store keeps it: code and message for whoever asked, and the gates of a refusal. */
export function toCommandError(error: unknown): CommandError {
  if (!(error instanceof CrossfadeError)) return { code: "FAILED", message: messageOf(error) };
  const hint = error.hint === undefined ? {} : { hint: error.hint };
  const gates = error instanceof GatesRefused ? { gates: error.gates } : {};
  return { code: error.code, message: error.message, ...hint, ...gates };
}
