import { expect, test } from "vitest";
import { pointBetween } from "../../switchover/series.ts";
import type { Heartbeats } from "../../switchover/series.ts";

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
        share: 0.25,
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
  expect(point).toMatchObject({ lag_ms: 3, keys_per_s: 20, reads_new: 0.25, at: 2 });
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
  const quiet = now.sidecars.map(({ id, share, traffic }) => ({
    id,
    share,
    traffic: traffic.map((entry) => ({ ...entry, recent: { ...LATENCY, count: 0 } })),
  }));
  expect(pointBetween(beat(0, 100, 1), { ...now, sidecars: quiet }).old.p99_ms).toBe(null);
});
