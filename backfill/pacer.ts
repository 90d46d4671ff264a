import { messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { otherSide, type Side } from "../config/words.ts";
import type { Migration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { type Pace, readPace, setPace } from "../store/control/pace.ts";
import { readSidecars } from "../store/control/sidecars.ts";
import { hasOpenChunk } from "../store/control/chunk-ledger.ts";
import { readPressure, type ServerPressure } from "../store/postgres/pressure.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../store/postgres/session.ts";
import type pg from "pg";
import { AppLatency } from "./app-latency.ts";
import {
  nextPace,
  type Signals,
  startingShare,
  type ThrottleLimits,
  tunedLimits,
} from "./throttle.ts";

/** How often the pace may change. */
const TICK_MS = 1_000;

/**
 * Measures the pressure and keeps the pace. Every backfill process has one and all look every second; the row in the
 * control store is set by the first that finds it due, so that the pace of ten machines moves as that of one.
 */
export class Pacer {
  readonly #plan: Plan;
  readonly #store: ControlStore;
  readonly #log: Log;
  readonly #id: string;
  readonly #tickMs: number;
  readonly #latency: AppLatency;
  readonly #sessions = new Map<Side, pg.Client>();
  #wal: { readonly bytes: number; readonly at: number } | undefined;
  #share = 1;
  #copyShare = 1;
  #copying = false;
  #reason: string | undefined;

  constructor(plan: Plan, store: ControlStore, log: Log, id: string, tickMs = TICK_MS) {
    this.#tickMs = tickMs;
    this.#plan = plan;
    this.#store = store;
    this.#log = log;
    this.#id = id;
    this.#latency = new AppLatency(tickMs);
  }

  get share(): number {
    return this.#share;
  }

  /** The same for the copy, which begins slowly. */
  get copyShare(): number {
    return this.#copyShare;
  }

  /** What status shows: why the copy is slowed down, or what could not be measured. */
  get reason(): string | undefined {
    return this.#reason;
  }

  /**
   * Looks once. Without limits it only reads along, so that nothing is asked of the databases. `mayCopy`: chunks that are open
   * are copied now.
   */
  async tick(migration: Migration | undefined, mayCopy: boolean): Promise<void> {
    const limits = tunedLimits(this.#plan.backfill.throttle, migration?.throttle ?? {});
    if (Object.values(limits).every((limit) => limit === undefined)) {
      this.#share = 1;
      this.#copyShare = 1;
      this.#reason = undefined;
      return;
    }
    // The sidecars are read on every tick, whoever sets the pace: the window of samples must be whole when it is our turn.
    this.#latency.add(await readSidecars(this.#store));
    const row = await readPace(this.#store);
    this.#follow(row, limits);
    if (row.ageMs < this.#tickMs * 0.9) return;
    const next = nextPace(
      row,
      await this.#signals(migration?.authority ?? "old"),
      limits,
      mayCopy && (await hasOpenChunk(this.#store)),
    );
    if (!(await setPace(this.#store, row, next))) return;
    if (next.share < row.share && next.waiting !== undefined)
      this.#log.info({ share: next.share }, `backfill: slower, ${next.reason ?? ""}`);
    this.#follow(next, limits);
  }

  /** What was measured before the copy got slower, or ended, tells nothing about what is now. */
  #follow(pace: Pace, limits: ThrottleLimits): void {
    if (pace.share < this.#share || (this.#copying && !pace.copying)) this.#latency.beginAnew();
    this.#share = pace.share;
    this.#copyShare = pace.copying ? pace.share : startingShare(pace, limits);
    this.#copying = pace.copying;
    this.#reason = pace.reason;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#sessions.values()].map(closeSession));
  }

  async #signals(authority: Side): Promise<Signals> {
    const follower = otherSide(authority);
    const [source, target] = await Promise.all([
      this.#pressure(authority),
      this.#pressure(follower),
    ]);
    const silent = (side: Side) => `the ${side} database does not answer`;
    return {
      p99: this.#latency.p99(),
      replicaLagMs: worst(source?.replicaLagMs, target?.replicaLagMs),
      active: source?.active ?? silent(authority),
      wal: target === undefined ? silent(follower) : this.#walRate(target.walBytes),
    };
  }

  async #pressure(side: Side): Promise<ServerPressure | undefined> {
    try {
      let client = this.#sessions.get(side);
      if (client === undefined) {
        client = await openSession({
          url: this.#plan[side].database,
          name: sideLabel(side),
          application: applicationName(this.#plan.name, "throttle", this.#id),
          statementTimeoutMs: 5_000,
        });
        this.#sessions.set(side, client);
      }
      return await readPressure(client);
    } catch (error) {
      this.#log.debug({ err: error }, `backfill: pressure of ${side}: ${messageOf(error)}`);
      const broken = this.#sessions.get(side);
      this.#sessions.delete(side);
      if (broken !== undefined) await closeSession(broken);
      return undefined;
    }
  }

  #walRate(bytes: number): number | undefined {
    const at = performance.now();
    const before = this.#wal;
    this.#wal = { bytes, at };
    // After a fail-over the WAL may stand further back.
    if (before === undefined || at - before.at > 10 * this.#tickMs) return undefined;
    return Math.max(0, bytes - before.bytes) / ((at - before.at) / 1_000);
  }
}

function worst(
  a: number | string | undefined,
  b: number | string | undefined,
): number | string | undefined {
  const known = [a, b].filter((value) => typeof value === "number");
  const texts = [a, b].filter((value) => typeof value === "string");
  if (texts[0] !== undefined && known.every((value) => value === 0)) return texts[0];
  return known.length === 0 ? "no database answers" : Math.max(...known);
}
