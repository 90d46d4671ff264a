import type { RollbackOnPlan } from "../config/policy.ts";
import type { Phase } from "../config/words.ts";
import { NO_COUNTS, windowKey } from "../store/control/side-reads.ts";
import type { SideCounts, WindowReport } from "../store/control/side-reads.ts";
import { percent, quantile, sumCounts, sumWindows } from "./compare-sides.ts";
import { FRESH_MS } from "./gate-facts.ts";
import { describeRun } from "./data-gates.ts";
import type { GateFacts } from "./gate-facts.ts";
import { sumShadow } from "./shadow.ts";

/**
 * Watches the new app while it answers clients, and says when to go back. It only looks; the controller acts. Time is a
 * parameter, and what it remembers is a minute of counts: a controller that takes over watches anew.
 */

export interface Trigger {
  readonly name: "errors" | "p99" | "mismatch" | "lag" | "verify";
  readonly value: string;
  readonly limit: string;
}

/** Phases in which clients depend on new. */
export const WATCHED: readonly Phase[] = ["canary", "read-new", "write-new"];

interface Snapshot {
  readonly at: number;
  readonly windows: ReadonlyMap<string, WindowReport>;
  readonly lagging: boolean;
}

export class Watchdog {
  readonly #limits: RollbackOnPlan;
  #key = "";
  #snapshots: Snapshot[] = [];

  constructor(limits: RollbackOnPlan) {
    this.#limits = limits;
  }

  /** Looks once; `at` is a monotonic time in ms. */
  observe(facts: GateFacts, at: number): Trigger | undefined {
    const key = windowKey(facts.migration);
    if (key !== this.#key) this.#snapshots = [];
    this.#key = key;
    if (!WATCHED.includes(facts.migration.phase)) return undefined;
    const now = snapshotOf(facts, at, this.#limits.lagMs);
    this.#snapshots = [
      ...this.#snapshots.filter((old) => at - old.at <= this.#limits.withinMs),
      now,
    ];
    return (
      this.#answers(facts, now) ?? this.#lag(at) ?? this.#mismatch(facts) ?? this.#verify(facts)
    );
  }

  #answers({ migration }: GateFacts, now: Snapshot): Trigger | undefined {
    const before = this.#snapshots[0] ?? now;
    const of = (side: "old" | "new") => {
      const reads = since(before, now, this.#key, "reads", side);
      if (migration.phase !== "write-new") return reads;
      return sumCounts([reads, since(before, now, this.#key, "writes", side)]);
    };
    const [old, next] = [of("old"), of("new")];
    const { errors, p99Ms, samples, withinMs } = this.#limits;
    if (next.requests < samples) return undefined;
    const during = `of ${next.requests} requests in ${Math.round(withinMs / 1000)} s`;
    const [share, oldShare] = [next.errors / next.requests, old.errors / Math.max(1, old.requests)];
    // Where old fails as much, going back helps nobody.
    if (share > errors && share > 2 * oldShare) {
      const value = `new failed ${percent(share)} ${during}${old.requests > 0 ? `, old ${percent(oldShare)}` : ""}`;
      return { name: "errors", value, limit: percent(errors) };
    }
    const p99 = quantile(next, 0.99);
    if (p99Ms === undefined || p99 <= p99Ms) return undefined;
    return {
      name: "p99",
      value: `new's p99 was ${Math.round(p99)} ms ${during}`,
      limit: `${p99Ms} ms`,
    };
  }

  /** All the time, not for a moment: a batch job makes a moment. */
  #lag(at: number): Trigger | undefined {
    const { lagMs, withinMs } = this.#limits;
    const first = this.#snapshots[0];
    if (lagMs === undefined || first === undefined || at - first.at < withinMs * 0.9)
      return undefined;
    if (!this.#snapshots.every(({ lagging }) => lagging)) return undefined;
    return {
      name: "lag",
      value: `above it for ${Math.round(withinMs / 1000)} s`,
      limit: `${lagMs} ms`,
    };
  }

  #mismatch({ migration, sidecars }: GateFacts): Trigger | undefined {
    const { mismatch, samples: needed } = this.#limits;
    if (mismatch === undefined || migration.phase !== "canary") return undefined;
    const { samples, mismatches } = sumShadow(sidecars.filter(({ seenMs }) => seenMs <= FRESH_MS));
    if (samples < needed || mismatches <= samples * mismatch) return undefined;
    return {
      name: "mismatch",
      value: `${mismatches} of ${samples} reads different`,
      limit: percent(mismatch),
    };
  }

  #verify({ lastRun, migration }: GateFacts): Trigger | undefined {
    if (!this.#limits.verify || lastRun?.state !== "dirty" || !lastRun.allTables) return undefined;
    if (lastRun.startedAt < migration.phaseSince) return undefined;
    return { name: "verify", value: describeRun(lastRun), limit: "no differences" };
  }
}

function snapshotOf(
  { sidecars, mirror, migration }: GateFacts,
  at: number,
  lagMs: number | undefined,
): Snapshot {
  const windows = new Map<string, WindowReport>();
  for (const { id, seenMs, stats } of sidecars)
    if (seenMs <= FRESH_MS && stats.window !== undefined) windows.set(id, stats.window);
  const isFresh =
    mirror !== undefined && mirror.seenMs <= FRESH_MS && mirror.stats.epoch === migration.epoch;
  return { at, windows, lagging: isFresh && lagMs !== undefined && mirror.stats.lag_ms > lagMs };
}

/** What the fleet counted between two looks; a sidecar that restarted, or is new, counts from nothing. */
function since(
  before: Snapshot,
  now: Snapshot,
  key: string,
  kind: "reads" | "writes",
  side: "old" | "new",
): SideCounts {
  const of = (report: WindowReport | undefined) => sumWindows([report], key, kind)[side];
  return sumCounts(
    [...now.windows].map(([id, report]) => minus(of(report), of(before.windows.get(id)))),
  );
}

function minus(now: SideCounts, before: SideCounts): SideCounts {
  if (now.requests < before.requests) return now;
  if (now.requests === before.requests) return NO_COUNTS;
  const was = new Map(before.buckets);
  return {
    requests: now.requests - before.requests,
    errors: now.errors - before.errors,
    buckets: now.buckets.map(([index, count]) => [index, count - (was.get(index) ?? 0)] as const),
  };
}
