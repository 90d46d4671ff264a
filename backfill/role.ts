import { randomBytes } from "node:crypto";
import { messageOf } from "../config/errors.ts";
import { type Log, RunningState } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { directionFrom, phaseIndex, sourceOf } from "../config/words.ts";
import { listen, type Listener } from "../store/control/listen.ts";
import type { Migration } from "../store/control/migration.ts";
import { closeControlStore, type ControlStore, openControlStore } from "../store/control/open.ts";
import { type StateWatcher, watchState } from "../store/control/watch.ts";
import { type BackfillStats, beatWorker, removeWorker } from "../store/control/workers.ts";
import { type Engine, openEngine } from "../store/postgres/engine.ts";
import { feedIsComplete } from "../store/postgres/install-feed.ts";
import { copyNextChunk } from "./worker.ts";

const HEARTBEAT_MS = 500;
/** The rate shown is that of the last few seconds. */
const RATE_WINDOW_MS = 5_000;

export interface BackfillRoleOptions {
  readonly plan: Plan;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Runs `backfill.workers` workers until the signal. They copy whatever chunks are pending, in every phase that has any. */
export async function runBackfillRole({ plan, log, signal }: BackfillRoleOptions): Promise<void> {
  const role = new BackfillRole(plan, log);
  signal.addEventListener("abort", () => role.stop(), { once: true });
  if (signal.aborted) role.stop();
  await role.run();
}

class BackfillRole {
  readonly #plan: Plan;
  readonly #log: Log;
  readonly #id = randomBytes(4).toString("hex");
  readonly #loops: readonly RunningState[];
  readonly #heart: RunningState;
  readonly #store: ControlStore;
  readonly #listener: Listener;
  readonly #state: StateWatcher;
  readonly #copied: { at: number; rows: number }[] = [];
  #busy = 0;
  #why: string | undefined;

  constructor(plan: Plan, log: Log) {
    this.#plan = plan;
    this.#log = log;
    this.#loops = Array.from(
      { length: plan.backfill.workers },
      (_, i) => new RunningState({ name: `backfill worker ${i + 1}`, log }),
    );
    this.#heart = new RunningState({ name: "backfill heartbeat", log });
    this.#store = openControlStore(plan, { role: "backfill", instance: this.#id });
    this.#listener = listen(this.#store, log);
    this.#state = watchState(this.#store, this.#listener, log);
    this.#state.onChange(() => {
      for (const loop of this.#loops) loop.wake();
    });
  }

  stop(): void {
    for (const loop of [...this.#loops, this.#heart]) loop.stop();
  }

  async run(): Promise<void> {
    await Promise.all([
      this.#beat(),
      ...this.#loops.map((loop, i) => this.#work(loop, `${this.#id}.${i + 1}`)),
    ]);
    await removeWorker(this.#store, this.#id).catch(() => {});
    await this.#state.stop();
    await this.#listener.close();
    await closeControlStore(this.#store);
  }

  async #work(loop: RunningState, worker: string): Promise<void> {
    while (loop.shouldRun()) {
      let error: unknown;
      let engine: Engine | undefined;
      try {
        const migration = await this.#untilWanted(loop);
        if (migration === undefined) continue;
        const direction = directionFrom(migration.authority);
        engine = await openEngine({
          plan: this.#plan,
          direction,
          epoch: migration.epoch,
          role: "backfill",
          instance: worker,
          statementTimeoutMs: 600_000,
        });
        if (await this.#feedReady(engine, loop))
          await this.#copyWhileWanted(loop, engine, worker, migration);
      } catch (caught) {
        error = caught;
        this.#why = messageOf(caught);
      } finally {
        await engine?.close();
      }
      await loop.backoff(error);
    }
  }

  /** DESIGN §2.3: nothing is copied until every transaction older than the feed has ended. */
  async #feedReady(engine: Engine, loop: RunningState): Promise<boolean> {
    const { source, compiled } = engine.context;
    if (await feedIsComplete(source, sourceOf(compiled.direction))) return true;
    this.#why = "waiting for transactions that began before the feed was installed";
    await loop.sleep(250);
    return false;
  }

  async #copyWhileWanted(
    loop: RunningState,
    engine: Engine,
    worker: string,
    started: Migration,
  ): Promise<void> {
    this.#why = undefined;
    while (
      loop.shouldRun() &&
      isWanted(this.#state.current) &&
      this.#state.current?.epoch === started.epoch
    ) {
      this.#busy += 1;
      try {
        const outcome = await copyNextChunk(this.#store, engine, worker, this.#log);
        if (outcome.kind === "none") break;
        loop.healthy();
        if (outcome.kind === "copied")
          this.#copied.push({ at: performance.now(), rows: outcome.result.rows });
      } finally {
        this.#busy -= 1;
      }
    }
    await loop.sleep(1_000);
  }

  async #untilWanted(loop: RunningState): Promise<Migration | undefined> {
    const migration = this.#state.current;
    if (isWanted(migration)) return migration;
    await loop.sleep(1_000);
    return undefined;
  }

  async #beat(): Promise<void> {
    while (this.#heart.shouldRun()) {
      let error: unknown;
      try {
        await beatWorker(this.#store, { id: this.#id, role: "backfill", stats: this.#stats() });
        this.#heart.healthy();
      } catch (caught) {
        error = caught;
      }
      await this.#heart.backoff(error);
      await this.#heart.sleep(HEARTBEAT_MS);
    }
  }

  #stats(): BackfillStats {
    const since = performance.now() - RATE_WINDOW_MS;
    while ((this.#copied[0]?.at ?? Number.POSITIVE_INFINITY) < since) this.#copied.shift();
    const rows = this.#copied.reduce((sum, entry) => sum + entry.rows, 0);
    const paused = this.#state.current?.paused.backfill === true;
    return {
      state: paused ? "paused" : this.#busy > 0 ? "copying" : "idle",
      rows_per_s: Math.round(rows / (RATE_WINDOW_MS / 1_000)),
      ...(this.#why === undefined ? {} : { why: this.#why }),
    };
  }
}

function isWanted(migration: Migration | undefined): migration is Migration {
  if (migration === undefined || migration.paused.backfill) return false;
  return phaseIndex(migration.phase) >= phaseIndex("backfill") && migration.phase !== "done";
}
