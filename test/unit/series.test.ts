import { expect, test } from "vitest";
import { Series, pointBetween } from "../../switchover/series.ts";
import type { Heartbeats, SeriesPoint } from "../../switchover/series.ts";

const LATENCY = { count: 5, p50: 2, p90: 3, p99: 4, max: 5 };

function beat(
  atMs: number,
  requests: number,
  errors: number,
  more: Partial<Heartbeats> = {},
): Heartbeats {
  return {
    atMs,
    mirror: { id: "m", lagMs: 3, keys: requests },
    sidecars: [
      {
        id: "s",
        traffic: [
          { side: "old", kind: "read", requests, errors, latency: LATENCY, recent: LATENCY },
        ],
      },
    ],
    ...more,
  };
}

test("rates are what was counted between two moments, of each process by itself", () => {
  const point = pointBetween(beat(0, 100, 1), beat(2_000, 140, 3));
  expect(point.old).toEqual({ requests_per_s: 20, errors_per_s: 1, p50_ms: 2, p99_ms: 4 });
  expect(point).toMatchObject({ lag_ms: 3, keys_per_s: 20, at: 2 });
  // Nobody reported anything of new: unknown, not zero.
  expect(point.new.requests_per_s).toBe(null);
});

test("a process that started anew counts from 0; one not seen before begins with the next point", () => {
  expect(pointBetween(beat(0, 100, 1), beat(2_000, 10, 0)).old.requests_per_s).toBe(5);
  const elsewhere = beat(0, 100, 1, { sidecars: [], mirror: undefined });
  const first = pointBetween(elsewhere, beat(2_000, 5_000, 0));
  expect(first.old.requests_per_s).toBe(0);
  expect(first.keys_per_s).toBe(null);
  expect(pointBetween(undefined, beat(0, 100, 1)).old.requests_per_s).toBe(null);
});

test("a side that was not asked has no latency", () => {
  const now = beat(2_000, 100, 1);
  const quiet = now.sidecars.map(({ id, traffic }) => ({
    id,
    traffic: traffic.map((entry) => ({ ...entry, recent: { ...LATENCY, count: 0 } })),
  }));
  expect(pointBetween(beat(0, 100, 1), { ...now, sidecars: quiet }).old.p99_ms).toBe(null);
});

function point(at: number, p99: number): SeriesPoint {
  const side = { requests_per_s: 10, errors_per_s: 0, p50_ms: 1, p99_ms: p99 };
  return { at, lag_ms: 1, keys_per_s: 10, old: side, new: side };
}

test("memory is bounded, the whole migration stays covered, and no spike is joined away", () => {
  const series = new Series();
  for (let i = 0; i < 100_000; i++) series.add(point(i * 2, i === 1_234 ? 900 : 5));
  const recent = series.read("recent");
  expect(recent.at).toHaveLength(180);
  expect(recent.at.at(-1)).toBe(199_998);
  const all = series.read("all");
  expect(all.at.length).toBeGreaterThan(400);
  expect(all.at.length).toBeLessThanOrEqual(1_000);
  expect(all.at[0]).toBeLessThan(1_000);
  expect(all.old.p99_ms.filter((value) => value === 900)).toHaveLength(1);
  expect(all.old.requests_per_s.every((value) => value === 10)).toBe(true);
  expect(all.at).toEqual(all.at.toSorted((a, b) => a - b));
});
