import { randomBytes } from "node:crypto";
import type pg from "pg";
import { CrossfadeError, messageOf } from "../../config/errors.ts";
import { type Log, RunningState } from "../../config/lifecycle.ts";
import type { Plan } from "../../config/plan-types.ts";
import {
  type Direction,
  directionFrom,
  type Phase,
  sourceOf,
  targetOf,
} from "../../config/words.ts";
import { listen, type Listener } from "../../store/control/listen.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import {
  closeControlStore,
  type ControlStore,
  openControlStore,
} from "../../store/control/open.ts";
import { type StateWatcher, watchState } from "../../store/control/watch.ts";
import {
  beatWorker,
  type MirrorStats,
  readWorkers,
  removeWorker,
} from "../../store/control/workers.ts";
import { openEngine } from "../../store/postgres/engine.ts";
import { logChannel } from "../../store/postgres/follow-schema.ts";
import { guardIsClosed } from "../../store/postgres/guard.ts";
import { endLeader, endSessionsOf, tryLead } from "../../store/postgres/leader.ts";
import { MIRROR_LOCK } from "../../store/postgres/locks.ts";
import { applicationName, closeSession, openSession } from "../../store/postgres/session.ts";
import type { ShapeWatch } from "../../store/postgres/shape-watch.ts";
import { findState } from "../../store/postgres/state.ts";
import type { SyncContext } from "../../store/postgres/sync.ts";
import { drainIdle } from "./idle-drain.ts";
import { openFeed } from "./open-feed.ts";
import { Passes } from "./pass.ts";
import { PassedNews } from "./passed-news.ts";
import { gatherFor, Looks, quietFor } from "./rhythm.ts";
import { type MirrorTracing, openMirrorTracing } from "../trace/ports.ts";

const HEARTBEAT_MS = 400;
/** A mirror that was not seen for this long is taken over. */
const DEAD_MS = 5_000;
/** How often a mirror with nothing to do looks whether its tables and triggers are what they were. */
const LOOK_MS = 500;
/** A mirror that learned of a flip begins anew once writes are released, or after so long. */
const RELEASED_MS = 300;
/** What a mirror says while it waits for the lead. Who leads may wait too, for something to follow. */
const STANDBY = { state: "waiting", why: "another mirror works", standby: true } as const;

export interface RoleOptions {
  readonly plan: Plan;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Runs the mirror until the signal: follows whichever direction is active. At most one mirror of a plan works at a time. */
export async function runMirrorRole({ plan, log, signal }: RoleOptions): Promise<void> {
  const id = randomBytes(4).toString("hex");
  const mirror = new MirrorRole(plan, log, id, await openMirrorTracing(plan, id, log));
  signal.addEventListener("abort", () => mirror.stop(), { once: true });
  if (signal.aborted) mirror.stop();
  await mirror.run();
}

class MirrorRole {
  readonly #plan: Plan;
  readonly #log: Log;
  readonly #id: string;
  readonly #tracing: MirrorTracing | undefined;
  readonly #running: RunningState;
  readonly #beat: RunningState;
  readonly #store: ControlStore;
  readonly #listener: Listener;
  readonly #state: StateWatcher;
  readonly #news: PassedNews;
  #stats: MirrorStats = {
    direction: "forward",
    epoch: 0,
    lag_ms: 0,
    keys: 0,
    passes: 0,
    deferred: 0,
    state: "starting",
    fence: "0",
  };
  /** When the mirror last knew that it had read everything, by the monotonic clock. */
  #caughtUpAt = performance.now();

  constructor(plan: Plan, log: Log, id: string, tracing: MirrorTracing | undefined) {
    this.#plan = plan;
    this.#id = id;
    this.#tracing = tracing;
    this.#log = log;
    this.#running = new RunningState({
      name: "mirror",
      log,
      initialBackoffMs: 20,
      maxBackoffMs: 2_000,
    });
    this.#beat = new RunningState({ name: "mirror heartbeat", log });
    this.#store = openControlStore(plan, { role: "mirror", instance: this.#id });
    this.#listener = listen(this.#store, log);
    this.#state = watchState(this.#store, this.#listener, log);
    this.#news = new PassedNews(this.#store, log);
    this.#state.onChange(() => this.#running.wake());
  }

  stop(): void {
    this.#running.stop();
  }

  async run(): Promise<void> {
    const heart = this.#beatUntilStopped();
    while (this.#running.shouldRun()) {
      let error: unknown;
      try {
        await this.#lead();
      } catch (caught) {
        error = caught;
        // STALE is how a mirror learns of a flip: that is nothing to report.
        if (caught instanceof CrossfadeError && caught.code === "STALE")
          await this.#untilReleased();
        else this.#stats = { ...this.#stats, state: "failed", why: messageOf(caught) };
      }
      await this.#running.backoff(error);
    }
    await heart;
    await this.#news.idle();
    await this.#tracing?.stop();
    await removeWorker(this.#store, this.#id).catch(() => {});
    await this.#state.stop();
    await this.#listener.close();
    await closeControlStore(this.#store);
  }

  /** Heartbeats go on their own pool, so that a slow pass never looks like a dead mirror. */
  async #beatUntilStopped(): Promise<void> {
    const beat = this.#beat;
    this.#running.signal.addEventListener("abort", () => beat.stop(), { once: true });
    while (beat.shouldRun()) {
      let error: unknown;
      try {
        await beatWorker(this.#store, { id: this.#id, role: "mirror", stats: this.#statsNow() });
        beat.healthy();
      } catch (caught) {
        error = caught;
      }
      await beat.backoff(error);
      await beat.sleep(HEARTBEAT_MS);
    }
  }

  /** The lag grows while nothing succeeds: a mirror that hangs must not report its last good number. */
  #statsNow(): MirrorStats {
    const behind = performance.now() - this.#caughtUpAt;
    return { ...this.#stats, lag_ms: Math.round(behind < 1_000 ? this.#stats.lag_ms : behind) };
  }

  /** To begin anew takes a good part of both servers' time, which writes that are held should not wait for. */
  async #untilReleased(): Promise<void> {
    const deadline = performance.now() + RELEASED_MS;
    while (this.#running.shouldRun() && this.#state.current?.hold !== undefined) {
      const left = deadline - performance.now();
      if (left <= 0) return;
      await this.#running.sleep(left);
    }
  }

  /** Takes the lead on the new database and works until something changes. */
  async #lead(): Promise<void> {
    if (!(await this.#isWanted())) return;
    const application = applicationName(this.#plan.name, "mirror", this.#id);
    const leader = await openSession({
      url: this.#plan.new.database,
      name: "new database",
      application,
    });
    try {
      while (this.#running.shouldRun() && !(await tryLead(leader, MIRROR_LOCK))) {
        // Its fences are over: the source may have gone back in time since, and count from further back again.
        this.#stats = { ...this.#stats, ...STANDBY, fence: "0" };
        await this.#takeOverIfDead(leader);
        await this.#running.sleep(300);
      }
      this.#stats = without(this.#stats, "standby");
      while (this.#running.shouldRun() && (await this.#isWanted()))
        await this.#follow(application, leader);
    } finally {
      await closeSession(leader);
    }
  }

  async #takeOverIfDead(leader: pg.Client): Promise<void> {
    const others = (await readWorkers(this.#store, "mirror")).filter(
      (worker) => worker.id !== this.#id,
    );
    const alive = others.some((worker) => worker.seenMs < DEAD_MS && worker.stats.standby !== true);
    if (!alive) await endLeader(leader, MIRROR_LOCK);
  }

  /** Waits (briefly) until the migration is in a phase with a mirror and not paused. */
  async #isWanted(): Promise<boolean> {
    const migration = this.#state.current;
    const wanted = migration !== undefined && hasMirror(migration.phase);
    if (wanted && !migration.paused.mirror) return true;
    this.#stats = {
      ...this.#stats,
      state: wanted ? "paused" : "waiting",
      lag_ms: 0,
      why: wanted ? (migration.gap ?? "paused by an operator") : "nothing to follow in this phase",
    };
    this.#caughtUpAt = performance.now();
    await this.#running.sleep(500);
    return false;
  }

  /**
   * The direction both databases agree on, or undefined in the middle of a flip, and while the side to follow takes writes of its
   * own: a restore or failover brought it back so, and the controller closes it.
   */
  async #agreedDirection(
    leader: pg.Client,
  ): Promise<{ direction: Direction; epoch: number } | undefined> {
    const old = await openSession({
      url: this.#plan.old.database,
      name: "old database",
      application: applicationName(this.#plan.name, "mirror", this.#id),
    });
    try {
      const [a, b] = [await findState(old, "old"), await findState(leader, "new")];
      if (a === undefined || b === undefined || a.direction !== b.direction || a.epoch !== b.epoch)
        return undefined;
      const follower = targetOf(a.direction);
      if (!(await guardIsClosed(follower === "old" ? old : leader, follower))) return undefined;
      return { direction: a.direction, epoch: a.epoch };
    } finally {
      await closeSession(old);
    }
  }

  async #follow(application: string, leader: pg.Client): Promise<void> {
    const agreed = await this.#agreedDirection(leader);
    if (agreed === undefined || this.#plan[agreed.direction] === undefined) {
      this.#stats = {
        ...this.#stats,
        state: "waiting",
        why:
          agreed === undefined
            ? "the sides are not installed, a flip is under way, or both take writes"
            : "the plan has no reverse mapping",
      };
      await this.#running.sleep(20);
      return;
    }
    this.#stats = { ...without(this.#stats, "why"), state: "starting" };
    const engine = await openEngine({
      plan: this.#plan,
      ...agreed,
      role: "mirror",
      instance: this.#id,
    });
    let idle: { stop(): Promise<void> } | undefined;
    try {
      const { context } = engine;
      const prefix = applicationName("", "mirror", "").trimEnd();
      await endSessionsOf(context.source, prefix, application);
      await endSessionsOf(context.target, prefix, application);
      const source = sourceOf(agreed.direction);
      await context.source.query(`listen ${logChannel(source)}`);
      context.source.on("notification", () => this.#running.wake());
      const feed = await openFeed({
        plan: this.#plan,
        context,
        application,
        wake: () => this.#running.wake(),
        onGap: (gap) => this.#reportGap(gap),
        pause: () => this.#pauseWhileWanted(),
      });
      idle = this.#drainIdle(context, application);
      const passes = new Passes(context, feed, this.#log, (fence) =>
        this.#news.announce(agreed.epoch, fence),
      );
      try {
        await passes.start();
        // Fences of one direction are numbers of another log: one that is left over would count as passed.
        this.#stats = {
          ...this.#stats,
          direction: agreed.direction,
          epoch: agreed.epoch,
          state: "running",
          fence: "0",
        };
        // The next gate waits for a mirror of this direction.
        this.#beat.wake();
        await this.#passUntilChange(passes, context.shapes, agreed.direction);
      } finally {
        await feed.close();
      }
    } finally {
      await idle?.stop();
      await engine.close();
    }
  }

  /** Throws STALE where nothing is to be followed any more: then what is missing was removed. */
  async #reportGap(gap: string): Promise<void> {
    const { phase, epoch } = await readMigration(this.#store);
    if (!hasMirror(phase)) throw notWanted();
    await setMigration(this.#store, { phase, epoch }, { gap });
    this.#stats = { ...this.#stats, fence: "0" };
    this.#log.error(
      { gap },
      `mirror: ${gap}; everything is copied again, and all reads go to the authority`,
    );
  }

  async #pauseWhileWanted(): Promise<void> {
    if (!this.#running.shouldRun() || !(await this.#isWanted())) throw notWanted();
    this.#stats = {
      ...this.#stats,
      state: "waiting",
      why: "waiting for transactions that began before the replication slot",
    };
    await this.#running.sleep(50);
  }

  /** The feed of the side that follows exists, and is read and discarded: it is ready when the direction turns. */
  #drainIdle(
    { compiled, epoch }: SyncContext,
    application: string,
  ): { stop(): Promise<void> } | undefined {
    const other = compiled.direction === "forward" ? "reverse" : "forward";
    if (this.#plan.feed !== "wal" || this.#plan[other] === undefined) return undefined;
    const abort = new AbortController();
    const { signal } = abort;
    const options = { plan: this.#plan, side: compiled.target, epoch, application, log: this.#log };
    const done = drainIdle({ ...options, signal });
    return {
      async stop() {
        abort.abort();
        await done;
      },
    };
  }

  async #passUntilChange(passes: Passes, shapes: ShapeWatch, direction: Direction): Promise<void> {
    let busyAt = performance.now();
    let lookedAt = performance.now();
    const looks = new Looks();
    while (this.#running.shouldRun() && this.#follows(direction)) {
      const began = performance.now();
      const result = await passes.run();
      this.#running.healthy();
      if (result === undefined || !result.full) this.#caughtUpAt = performance.now();
      if (result === undefined) {
        const tookMs = looks.took(performance.now() - began);
        // A trigger that was dropped leaves an empty log.
        if (performance.now() - lookedAt > LOOK_MS) {
          await shapes.check();
          lookedAt = performance.now();
        }
        this.#stats = { ...without(this.#stats, "why"), state: "running", lag_ms: 0 };
        const isHeld = this.#state.current?.hold !== undefined;
        await this.#running.sleep(quietFor(performance.now() - busyAt, tookMs, isHeld));
        continue;
      }
      busyAt = performance.now();
      this.#stats = {
        ...without(this.#stats, "why"),
        state: "running",
        lag_ms: result.lagMs,
        keys: this.#stats.keys + result.keys,
        passes: this.#stats.passes + 1,
        deferred: result.deferred,
        fence: result.fence.toString(),
      };
      if (result.traces.length > 0)
        this.#tracing?.passed({
          ...result,
          parents: result.traces,
          direction,
          epoch: this.#stats.epoch,
        });
      const gatherMs = result.fenceRead || result.full ? 0 : gatherFor(result.size, result.lagMs);
      if (gatherMs > 0) await this.#running.sleep(gatherMs);
    }
  }

  #follows(direction: Direction): boolean {
    const migration = this.#state.current;
    if (migration === undefined) return true;
    if (migration.paused.mirror || migration.phase === "off" || migration.phase === "done")
      return false;
    // The control store learns of a flip after the databases; they decide, by STALE.
    return migration.epoch <= this.#stats.epoch || directionFrom(migration.authority) === direction;
  }
}

function without(stats: MirrorStats, key: "why" | "standby"): MirrorStats {
  const { [key]: _, ...rest } = stats;
  return rest;
}

function hasMirror(phase: Phase): boolean {
  return phase !== "off" && phase !== "done";
}

function notWanted(): CrossfadeError {
  return new CrossfadeError("STALE", "the mirror is not wanted any more");
}
