import { randomBytes } from "node:crypto";
import { messageOf } from "../config/errors.ts";
import { type Log, RunningState } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { directionFrom, phaseIndex, sourceOf } from "../config/words.ts";
import { hasFreeChunk } from "../store/control/chunk-ledger.ts";
import { listen, type Listener } from "../store/control/listen.ts";
import type { Migration } from "../store/control/migration.ts";
import { closeControlStore, type ControlStore, openControlStore } from "../store/control/open.ts";
import { type StateWatcher, watchState } from "../store/control/watch.ts";
import { type BackfillStats, beatWorker, removeWorker } from "../store/control/workers.ts";
import { type Engine, openEngine } from "../store/postgres/engine.ts";
import { feedIsComplete } from "../store/postgres/install-feed.ts";
import { verifyIfDue } from "./continuous.ts";
import { GroupSize } from "./group-size.ts";
import { Pacer } from "./pacer.ts";
import { rebuildWhenCopied } from "./rebuilding.ts";
import { restAfter } from "./throttle.ts";
import { copyNextChunk } from "./worker.ts";

const HEARTBEAT_MS = 500;
/** The rate shown is that of the last few seconds. */
const RATE_WINDOW_MS = 5_000;

/** How often the pace is looked at: what `tune` or the pressure changed is felt within a second. */
const LOOK_MS = 500;
/** How often a worker without work looks for some. */
const LOOK_AGAIN_MS = 1_000;
/** How often to see whether everything should be compared once more. */
const VERIFY_LOOK_MS = 2_000;
/** Rows that one sync takes at most. */
const ROWS_AT_ONCE = 50_000;

interface Worker {
  readonly loop: RunningState;
  readonly engine: Engine;
  readonly worker: string;
  readonly number: number;
  readonly group: GroupSize;
}

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
  readonly #crew: { readonly loop: RunningState; readonly done: Promise<void> }[] = [];
  readonly #heart: RunningState;
  readonly #looking: RunningState;
  readonly #verifying: RunningState;
  readonly #rebuilding: RunningState;
  readonly #pacer: Pacer;
  readonly #store: ControlStore;
  readonly #listener: Listener;
  readonly #state: StateWatcher;
  readonly #copied: { at: number; rows: number }[] = [];
  #busy = 0;
  #why: string | undefined;

  constructor(plan: Plan, log: Log) {
    this.#plan = plan;
    this.#log = log;
    this.#looking = new RunningState({ name: "backfill throttle", log });
    this.#verifying = new RunningState({ name: "continuous verify", log });
    this.#rebuilding = new RunningState({ name: "backfill rebuild", log });
    this.#heart = new RunningState({ name: "backfill heartbeat", log });
    this.#store = openControlStore(plan, { role: "backfill", instance: this.#id });
    this.#listener = listen(this.#store, log);
    this.#state = watchState(this.#store, this.#listener, log);
    this.#pacer = new Pacer(plan, this.#store, log, this.#id);
    this.#state.onChange(() => {
      this.#hire();
      for (const { loop } of this.#crew) loop.wake();
      this.#rebuilding.wake();
    });
  }

  stop(): void {
    for (const loop of [
      ...this.#crew.map((worker) => worker.loop),
      this.#looking,
      this.#verifying,
      this.#rebuilding,
      this.#heart,
    ])
      loop.stop();
  }

  async run(): Promise<void> {
    this.#hire();
    const work = { plan: this.#plan, store: this.#store, log: this.#log };
    await Promise.all([
      this.#beat(),
      this.#look(),
      this.#verify(),
      rebuildWhenCopied(work, this.#rebuilding, this.#state),
    ]);
    // Nobody is hired any more once the heart has stopped.
    await Promise.all(this.#crew.map((worker) => worker.done));
    await this.#pacer.close();
    await removeWorker(this.#store, this.#id).catch(() => {});
    await this.#state.stop();
    await this.#listener.close();
    await closeControlStore(this.#store);
  }

  /** As many workers as the plan or `tune` says; those beyond stay without work. */
  #hire(): void {
    while (this.#heart.shouldRun() && this.#crew.length < this.#wantedWorkers()) {
      const number = this.#crew.length + 1;
      const loop = new RunningState({ name: `backfill worker ${number}`, log: this.#log });
      this.#crew.push({ loop, done: this.#work(loop, number) });
    }
  }

  #wantedWorkers(): number {
    return this.#state.current?.throttle["workers"] ?? this.#plan.backfill.workers;
  }

  async #work(loop: RunningState, number: number): Promise<void> {
    const worker = `${this.#id}.${number}`;
    const group = new GroupSize(this.#plan.backfill.targetMs);
    while (loop.shouldRun()) {
      let error: unknown;
      let engine: Engine | undefined;
      try {
        const migration = await this.#untilWanted(loop, number);
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
          await this.#copyWhileWanted({ loop, engine, worker, number, group }, migration);
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
    { loop, engine, worker, number, group }: Worker,
    started: Migration,
  ): Promise<void> {
    this.#why = undefined;
    while (
      loop.shouldRun() &&
      number <= this.#wantedWorkers() &&
      isWanted(this.#state.current) &&
      this.#state.current?.epoch === started.epoch
    ) {
      let rest = 0;
      this.#busy += 1;
      try {
        const share = this.#pacer.copyShare;
        const outcome = await copyNextChunk(this.#store, engine, worker, this.#log, {
          most: (table) => group.next(table, this.#mostChunks(), share),
          pace: (table) => group.pace(table, share),
        });
        if (outcome.kind === "none") {
          // What the copy did without can be built again, if this was the last one at work.
          this.#rebuilding.wake();
          break;
        }
        loop.healthy();
        if (outcome.kind === "copied") {
          const { table, chunks, ms, result } = outcome;
          const { restedMs } = result.direct;
          this.#copied.push({ at: performance.now(), rows: result.rows });
          group.took(table, { chunks, ms, ...result.direct });
          rest = restAfter(ms - restedMs, this.#pacer.copyShare) - restedMs;
        }
      } finally {
        this.#busy -= 1;
      }
      await this.#rest(loop, rest);
    }
    await loop.sleep(LOOK_AGAIN_MS);
  }

  /** Rests in pieces, so that a pace that grew again is felt at once. */
  async #rest(loop: RunningState, ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (loop.shouldRun() && performance.now() < until && this.#pacer.copyShare < 1)
      await loop.sleep(Math.min(250, Math.max(1, until - performance.now())));
  }

  /** Rows that one sync takes at most, in chunks as they were planned. */
  #mostChunks(): number {
    const rows = this.#state.current?.throttle["chunk"] ?? ROWS_AT_ONCE;
    return Math.max(1, Math.floor(rows / this.#plan.backfill.chunk));
  }

  /** Keeps the pace; a control store that is away leaves it as it was. */
  async #look(): Promise<void> {
    while (this.#looking.shouldRun()) {
      let error: unknown;
      try {
        await this.#pacer.tick(this.#state.current, isWanted(this.#state.current));
        this.#looking.healthy();
      } catch (caught) {
        error = caught;
      }
      await this.#looking.backoff(error);
      await this.#looking.sleep(LOOK_MS);
    }
  }

  /** Comparing that nobody asked for; a phase, an epoch or a pause that changes meanwhile ends it. */
  async #verify(): Promise<void> {
    while (this.#verifying.shouldRun()) {
      let error: unknown;
      const migration = this.#state.current;
      const change = new AbortController();
      const off = this.#state.onChange((now) => {
        if (migration !== undefined && !sameTask(now, migration))
          change.abort(new Error("the migration moved on"));
      });
      try {
        if (migration !== undefined) {
          await verifyIfDue({
            plan: this.#plan,
            store: this.#store,
            log: this.#log,
            migration,
            share: () => this.#pacer.share,
            sleep: (ms) => this.#verifying.sleep(ms),
            signal: AbortSignal.any([change.signal, this.#verifying.signal]),
          });
        }
        this.#verifying.healthy();
      } catch (caught) {
        error = caught;
      } finally {
        off();
      }
      await this.#verifying.backoff(error);
      await this.#verifying.sleep(VERIFY_LOOK_MS);
    }
  }

  async #untilWanted(loop: RunningState, number: number): Promise<Migration | undefined> {
    const migration = this.#state.current;
    if (isWanted(migration) && number <= this.#wantedWorkers()) {
      // Its sessions are opened only for work: that takes time of both servers.
      if (await hasFreeChunk(this.#store, directionFrom(migration.authority))) return migration;
      this.#why = undefined;
    }
    await loop.sleep(LOOK_AGAIN_MS);
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
      state: paused
        ? "paused"
        : this.#pacer.share < 1
          ? "throttled"
          : this.#busy > 0
            ? "copying"
            : "idle",
      rows_per_s: Math.round(rows / (RATE_WINDOW_MS / 1_000)),
      ...throttleText(this.#pacer),
      ...(this.#why === undefined ? {} : { why: this.#why }),
    };
  }
}

function sameTask(a: Migration, b: Migration): boolean {
  return (
    a.epoch === b.epoch &&
    a.gap === b.gap &&
    a.paused.backfill === b.paused.backfill &&
    a.paused.mirror === b.paused.mirror &&
    (a.phase === "done") === (b.phase === "done")
  );
}

function throttleText({ share, reason }: Pacer): { readonly throttle?: string } {
  if (share >= 1) return reason === undefined ? {} : { throttle: reason };
  return { throttle: `at ${Math.round(share * 100)} % of full speed: ${reason ?? "pressure"}` };
}

function isWanted(migration: Migration | undefined): migration is Migration {
  if (migration === undefined || migration.paused.backfill) return false;
  return phaseIndex(migration.phase) >= phaseIndex("backfill") && migration.phase !== "done";
}
