import { describe, expect, onTestFinished, test, vi } from "vitest";
import { AppLatency } from "../../backfill/app-latency.ts";
import { GroupSize } from "../../backfill/group-size.ts";
import {
  FLOOR,
  nextPace,
  restAfter,
  type Signals,
  startingShare,
  type ThrottleLimits,
  tunedLimits,
} from "../../backfill/throttle.ts";
import { parseSetting } from "../../cli/tune.ts";
import type { Pace } from "../../store/control/pace.ts";
import type { SidecarSeen } from "../../store/control/sidecars.ts";

const NONE: ThrottleLimits = {
  p99: undefined,
  replicaLagMs: undefined,
  active: undefined,
  wal: undefined,
};
const QUIET: Signals = { p99: {}, replicaLagMs: 0, active: 0, wal: 0 };
const FULL: Pace = {
  share: 1,
  reason: undefined,
  baseline: {},
  copying: true,
  waiting: undefined,
};

/** The pace after each of some looks. */
function walk(from: Pace, looks: readonly Signals[], limits: ThrottleLimits, copying = true) {
  return looks.reduce<Pace[]>(
    (paces, signals) => [...paces, nextPace(paces.at(-1) ?? from, signals, limits, copying)],
    [],
  );
}

describe("pace", () => {
  test("each signal halves it and says so; once that is seen, and without pressure, it grows back to full", () => {
    const cases = [
      [{ replicaLagMs: 5_000 }, { replicaLagMs: 7_000 }, "replica lag 7 s > 5 s"],
      [{ active: 50 }, { active: 51 }, "51 active sessions > 50"],
      [{ wal: 50e6 }, { wal: 80e6 }, "WAL 80 MB/s > 50 MB/s"],
    ] as const;
    for (const [limit, signal, reason] of cases) {
      const limits = { ...NONE, ...limit };
      const cut = nextPace(FULL, { ...QUIET, ...signal }, limits, true);
      expect(cut).toMatchObject({ share: 0.5, reason });
      const paces = walk(
        cut,
        Array.from({ length: 12 }, () => QUIET),
        limits,
      );
      expect(paces.slice(0, 3)).toMatchObject([
        { share: 0.5, reason },
        { share: 0.5, reason },
        { share: 0.55, reason: "no pressure, growing" },
      ]);
      expect(paces.at(-1)).toMatchObject({ share: 1, reason: undefined });
    }
  });

  test("a p99 above the usual one slows down; what is noise of a short one does not", () => {
    const limits = { ...NONE, p99: 1.2 };
    const from = { ...FULL, baseline: { read: 10, write: 1 } };
    const busy = nextPace(from, { ...QUIET, p99: { read: 12.5 } }, limits, true);
    expect(busy).toMatchObject({ share: 0.5, baseline: { read: 10 } });
    expect(busy.reason).toBe("p99 of reads 12.5 ms > 12 ms (usual 10 ms)");
    expect(nextPace(from, { ...QUIET, p99: { write: 1.24 } }, limits, true).share).toBe(1);
    expect(nextPace(from, { ...QUIET, p99: { write: 1.3 } }, limits, true).share).toBe(0.5);
  });

  test("a p99 does not cut again before it can tell what the last cut did; anything else does", () => {
    const limits = { ...NONE, p99: 1.2, active: 50 };
    const slow = { ...QUIET, p99: { read: 30 } };
    const from = { ...FULL, baseline: { read: 10 } };
    const paces = walk(from, [slow, slow, slow, slow], limits);
    expect(paces.map((pace) => pace.share)).toEqual([0.5, 0.5, 0.5, 0.25]);
    expect(walk(from, [slow, { ...slow, active: 51 }], limits).at(-1)?.share).toBe(0.25);
  });

  test("beside traffic a copy begins slowly, and grows to full; at rest the pace is full", () => {
    const limits = { ...NONE, p99: 1.2 };
    const rest = { ...FULL, baseline: { read: 10 }, copying: false };
    const quiet = { ...QUIET, p99: { read: 10 } };
    expect(nextPace(rest, quiet, limits, false).share).toBe(1);
    expect(startingShare(rest, limits)).toBe(0.1);
    const paces = walk(
      rest,
      Array.from({ length: 40 }, () => quiet),
      limits,
    );
    expect(paces[0]).toMatchObject({ share: 0.1, waiting: undefined });
    expect(paces[1]).toMatchObject({ share: 0.11 });
    expect(paces.at(-1)?.share).toBe(1);
    // Nobody is there to feel it.
    expect(nextPace({ ...rest, baseline: {} }, QUIET, limits, true).share).toBe(1);
    expect(nextPace(rest, quiet, NONE, true).share).toBe(1);
  });

  test("an app that is slow for another reason holds the copy only until that is learnt at the floor", () => {
    const limits = { ...NONE, p99: 1.2 };
    const slow = { ...QUIET, p99: { read: 40 } };
    const paces = walk(
      { ...FULL, baseline: { read: 10 } },
      Array.from({ length: 90 }, () => slow),
      limits,
    );
    expect(Math.min(...paces.map((pace) => pace.share))).toBe(FLOOR);
    expect(paces.at(-1)?.share).toBe(1);
  });

  test("what is usual is not learnt from the copy itself: it goes to the floor until that is measured", () => {
    const limits = { ...NONE, p99: 1.2 };
    const paces = walk(
      FULL,
      [
        ...Array.from({ length: 11 }, () => ({ ...QUIET, p99: { read: 30 } })),
        { ...QUIET, p99: { read: 8 } },
        { ...QUIET, p99: { read: 8 } },
      ],
      limits,
    );
    expect(paces[0]).toMatchObject({ share: FLOOR });
    expect(paces[0]?.reason).toContain("measuring");
    expect(paces.at(-2)?.baseline).toEqual({ read: 8 });
    expect(paces.at(-1)?.share).toBeGreaterThan(FLOOR);
    // Nothing is copied: it is simply learnt. What was seen when the copy ended was seen beside it.
    const seen = { ...QUIET, p99: { read: 8 } };
    const ended = nextPace(FULL, seen, limits, false);
    expect(ended.share).toBe(1);
    expect(ended.baseline).toEqual({});
    expect(nextPace(ended, seen, limits, false)).toMatchObject({ share: 1, baseline: { read: 8 } });
  });

  test("what is limited and cannot be measured is said, and limits nothing", () => {
    const signals = { ...QUIET, replicaLagMs: "grant pg_monitor" };
    expect(nextPace(FULL, signals, { ...NONE, replicaLagMs: 5 }, true)).toMatchObject({
      share: 1,
      reason: "replica lag unknown: grant pg_monitor",
    });
    expect(nextPace(FULL, signals, NONE, true).reason).toBeUndefined();
  });

  test("a worker works its share of the time, and never rests long", () => {
    expect(restAfter(100, 1)).toBe(0);
    expect(restAfter(100, 0.5)).toBe(100);
    expect(restAfter(60_000, FLOOR)).toBe(10_000);
  });
});

test("tune is written as the plan is, goes over it, and can be taken back", () => {
  expect(parseSetting("p99=1.5x")).toEqual({ key: "p99", value: 1.5 });
  expect(parseSetting("replica_lag=2s")).toEqual({ key: "replica_lag", value: 2_000 });
  expect(parseSetting("wal=10MB")).toEqual({ key: "wal", value: 10e6 });
  expect(parseSetting("workers=plan")).toEqual({ key: "workers", value: null });
  for (const wrong of ["workers", "workers=0", "speed=1", "p99=2", "active=-1", "=1"])
    expect(() => parseSetting(wrong)).toThrow(/tune/);
  expect(tunedLimits({ ...NONE, p99: 1.2 }, { p99: 2, workers: 1 })).toEqual({ ...NONE, p99: 2 });
});

test("chunks are taken together up to the target duration, at most twice as many as before", () => {
  const group = new GroupSize(500);
  expect(group.next("a", 100, 1)).toBe(1);
  const took = (chunks: number, ms: number) => ({ chunks, ms, restedMs: 0, bytes: 0 });
  group.took("a", took(1, 10));
  expect(group.next("a", 100, 1)).toBe(2);
  group.took("a", took(2, 10));
  expect(group.next("a", 3, 1)).toBe(3);
  // A copy that is slowed down takes less at once.
  expect(group.next("a", 100, 0.5)).toBe(2);
  expect(group.next("a", 100, FLOOR)).toBe(1);
  group.took("a", took(4, 2_000));
  expect(group.next("a", 100, 1)).toBe(1);
  group.took("a", took(1, 100));
  expect(group.next("b", 100, 1)).toBe(1);
});

test("a sync of a slow copy is stretched evenly, to its share and no longer than a sync should take", () => {
  const group = new GroupSize(500);
  const bytes = 1_000;
  expect(group.next("a", 100, 0.5)).toBe(1);
  expect(group.pace("a", 0.5)).toBeUndefined();
  group.took("a", { chunks: 1, ms: 100, restedMs: 0, bytes });
  expect(group.next("a", 100, 0.5)).toBe(1);
  expect(group.pace("a", 1)).toBeUndefined();
  expect(group.pace("a", 0.5)).toEqual({ restPerByte: 0.1, mostMs: 500 });
  // 4,900 ms would be its share.
  expect(group.pace("a", FLOOR)).toEqual({ restPerByte: 0.5, mostMs: 500 });
  // What was rested is no work: neither the pace nor the size of the next shrinks for it.
  group.took("a", { chunks: 1, ms: 600, restedMs: 500, bytes });
  expect(group.pace("a", 0.5)).toEqual({ restPerByte: 0.1, mostMs: 500 });
  expect(group.next("a", 100, 1)).toBe(2);
  // Rows that do not travel directly, and other tables, have no pace.
  group.took("a", { chunks: 2, ms: 100, restedMs: 0, bytes: 0 });
  expect(group.pace("a", 0.5)).toBeUndefined();
  group.took("a", { chunks: 2, ms: 100, restedMs: 0, bytes });
  expect(group.pace("b", 0.5)).toBeUndefined();
  group.next("b", 100, 0.5);
  expect(group.pace("b", 0.5)).toBeUndefined();
});

test("heartbeats of many sidecars make one p99; the same one twice counts once, few requests say nothing", () => {
  const latency = new AppLatency(0);
  const sidecar = (id: string, requests: number, count: number, p99: number, seenMs = 0) =>
    ({
      id,
      seenMs,
      stats: { traffic: [{ side: "old", kind: "read", requests, recent: { count, p99 } }] },
    }) as unknown as SidecarSeen;
  latency.add([sidecar("a", 30, 30, 10)]);
  expect(latency.p99()).toEqual({});
  latency.add([sidecar("a", 30, 30, 10), sidecar("b", 90, 90, 20)]);
  expect(latency.p99()).toEqual({ read: (30 * 10 + 90 * 20) / 120 });
  latency.add([sidecar("a", 60, 30, 10, 60_000)]);
  expect(latency.p99()).toEqual({});
});

test("what was seen before the pace changed is forgotten; only heartbeats that began after it count", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const latency = new AppLatency(1_000);
  const beat = (requests: number, p99: number, seenMs: number) =>
    latency.add([
      {
        id: "a",
        seenMs,
        stats: { traffic: [{ side: "old", kind: "read", requests, recent: { count: 100, p99 } }] },
      } as unknown as SidecarSeen,
    ]);
  beat(100, 80, 0);
  expect(latency.p99()).toEqual({ read: 80 });
  latency.beginAnew();
  expect(latency.p99()).toEqual({});
  vi.advanceTimersByTime(500);
  beat(200, 60, 0);
  vi.advanceTimersByTime(600);
  beat(200, 60, 600);
  expect(latency.p99()).toEqual({});
  beat(300, 10, 50);
  expect(latency.p99()).toEqual({ read: 10 });
});
