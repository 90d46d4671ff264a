import { describe, expect, test } from "vitest";
import { SideWindow } from "../../proxy/side-window.ts";
import { NO_COUNTS, bucketMs, bucketOf, windowKey } from "../../store/control/side-reads.ts";
import type { SideCounts } from "../../store/control/side-reads.ts";
import { compareSides, quantile, sumCounts, sumWindows } from "../../switchover/compare-sides.ts";
import type { GateFacts, GateLimits } from "../../switchover/gate-facts.ts";
import { canaryGate, drillGate, stayGate, windowGate } from "../../switchover/policy-gates.ts";

const LIMITS = { samples: 100, errors: 0.001, p99: 1.1 };

/** So many requests, of which some fail, at these latencies in turn. */
function counts(requests: number, errors: number, ...latencies: number[]): SideCounts {
  const window = new SideWindow();
  window.enter("k");
  for (let n = 0; n < requests; n += 1)
    window.record("new", "read", n < errors, latencies[n % latencies.length] ?? 10);
  return window.report().reads.new;
}

test("where new has few reads, the canary gate says which sidecars leave them with old, and what to do", () => {
  const migration = { phase: "canary", epoch: 1, readsNew: 0.5 } as GateFacts["migration"];
  const sidecar = (why: string | null) =>
    ({ stats: { reads: { breaker: "closed", why } } }) as GateFacts["sidecars"][number];
  const gate = (...whys: (string | null)[]) =>
    canaryGate(migration, whys.map(sidecar), { canary: LIMITS } as GateLimits);
  expect(gate("other sidecars", null).why).toMatch(
    /100 of each side are needed to say; 1 of 2 sidecars leave reads with old: .*proxy\.tokens/,
  );
  expect(gate(null).why).toMatch(/are needed to say$/);
});

describe("new against old", () => {
  const verdict = (old: SideCounts, next: SideCounts) => compareSides({ old, new: next }, LIMITS);

  test("no data is no success", () => {
    expect(verdict(NO_COUNTS, NO_COUNTS)).toMatchObject({
      state: "unknown",
      value: "new no reads; old no reads",
    });
    expect(verdict(counts(99, 0), counts(5_000, 0)).state).toBe("unknown");
    expect(verdict(counts(5_000, 0), counts(99, 0)).state).toBe("unknown");
    expect(verdict(counts(100, 0), counts(100, 0)).state).toBe("pass");
  });

  test("one failure in a hundred may be chance, fifty in a thousand are not", () => {
    expect(verdict(counts(1_000, 0), counts(100, 1)).state).toBe("unknown");
    const failing = verdict(counts(1_000, 0), counts(1_000, 50));
    expect(failing).toMatchObject({ state: "fail" });
    expect(failing.why).toBe("new fails 5 % of reads, old 0 %: more than chance explains");
    expect(verdict(counts(1_000, 50), counts(1_000, 50)).state, "old fails as well").toBe("pass");
    expect(verdict(counts(1_000, 50), counts(1_000, 0)).state, "new is better").toBe("pass");
  });

  test("a slower tail fails where chance does not explain it, and a slower median too", () => {
    const old = counts(5_000, 0, 10, 11, 12, 13);
    expect(verdict(old, counts(5_000, 0, 10, 11, 12, 13)).state).toBe("pass");
    const tail = verdict(
      old,
      counts(5_000, 0, ...Array.from({ length: 50 }, (_, n) => (n < 2 ? 90 : 11))),
    );
    expect(tail).toMatchObject({ state: "fail", why: expect.stringContaining("p99") as string });
    const median = verdict(old, counts(5_000, 0, 30));
    expect(median).toMatchObject({ state: "fail", why: expect.stringContaining("p50") as string });
    const two = verdict(
      counts(5_000, 0, 10),
      counts(100, 0, ...Array.from({ length: 100 }, (_, n) => (n < 2 ? 90 : 10))),
    );
    expect(two.state, "two slow ones of a hundred").toBe("unknown");
    const slow = counts(5_000, 0, ...Array.from({ length: 50 }, (_, n) => (n < 2 ? 90 : 10)));
    expect(verdict(counts(100, 0, 10), slow).state, "a hundred of old say little of its p99").toBe(
      "unknown",
    );
    expect(verdict(counts(1_000, 0, 10), slow).state, "a thousand do").toBe("fail");
    const slowest = [90, ...Array.from({ length: 9 }, () => 10)];
    const few = (old: SideCounts, next: SideCounts) =>
      compareSides({ old, new: next }, { ...LIMITS, samples: 1 }).state;
    expect(few(counts(1, 0, 10), counts(5_000, 0, 90)), "one read of old").toBe("unknown");
    expect(few(counts(5_000, 0, 10), counts(1, 0, 90)), "one read of new").toBe("unknown");
    expect(few(counts(5_000, 0, 10), counts(10, 0, ...slowest)), "the slowest").toBe("unknown");
  });

  test("milliseconds are nobody's concern, whatever their factor", () => {
    expect(verdict(counts(5_000, 0, 1), counts(5_000, 0, 4)).state).toBe("pass");
  });
});

describe("counting", () => {
  test("a bucket is off by a thirty-second at most", () => {
    for (const ms of [0.001, 0.03, 0.5, 1, 7.7, 99, 1_234, 60_000]) {
      const top = bucketMs(bucketOf(ms));
      expect(top).toBeGreaterThanOrEqual(ms);
      expect(top).toBeLessThanOrEqual(ms * (1 + 1 / 32) + 0.002);
    }
  });

  test("quantiles of a sum are those of all", () => {
    const all = sumCounts([counts(99, 1, 10), counts(1, 0, 500)]);
    expect(all).toMatchObject({ requests: 100, errors: 1 });
    expect(quantile(all, 0.5)).toBeCloseTo(10, 0);
    expect(quantile(all, 1)).toBeGreaterThan(490);
    expect(quantile(NO_COUNTS, 0.5)).toBeNaN();
  });

  test("another routing begins anew, and counts of an earlier one are left out of the sum", () => {
    const [earlier, now] = [0.1, 0.5].map((readsNew) =>
      windowKey({ phase: "canary", epoch: 1, readsNew }),
    );
    const window = new SideWindow();
    expect(window.enter(earlier!)).toBe(true);
    window.record("new", "read", false, 5);
    expect(window.enter(earlier!)).toBe(false);
    const before = window.report();
    expect(window.enter(now!)).toBe(true);
    window.record("new", "read", true, 5);
    window.record("old", "write", false, 5);
    const sum = sumWindows([before, window.report(), undefined], now!, "reads");
    expect([sum.new.requests, sum.new.errors, sum.old.requests]).toEqual([1, 1, 0]);
  });
});

describe("stay, window, drill", () => {
  const limits = (change: Partial<GateLimits>) => change as GateLimits;

  test("a stay that is not over says how long it lasts, and waiting heals it", () => {
    const asked = limits({ stayMs: { canary: 300_000 } });
    expect(stayGate({ phase: "shadow", sinceMs: 0 }, asked)).toBeUndefined();
    expect(stayGate({ phase: "canary", sinceMs: 60_000 }, asked)).toMatchObject({
      state: "fail",
      value: "1 min",
      limit: "at least 5 min",
      why: "this step of canary must last 4 min more",
      heals: "by-waiting",
    });
    expect(stayGate({ phase: "canary", sinceMs: 300_000 }, asked)?.state).toBe("pass");
  });

  test("a window is open in every minute its pattern names, in its zone", () => {
    const asked = limits({
      windows: { "write-new": { cron: "* 9-16 * * 1-5", zone: "Europe/Berlin" } },
    });
    const at = (time: string) => windowGate("write-new", new Date(time), asked);
    expect(windowGate("done", new Date(), asked)).toBeUndefined();
    expect(at("2026-11-20T15:59:59Z")?.state, "Friday 16:59 in Berlin").toBe("pass");
    expect(at("2026-11-20T08:00:30Z")?.state, "Friday 9:00").toBe("pass");
    expect(at("2026-11-20T16:00:00Z"), "Friday 17:00").toMatchObject({
      state: "fail",
      value: "closed",
      why: "the window opens at 2026-11-23T08:00:00.000Z",
    });
    expect(at("2026-11-21T12:00:00Z")?.state, "Saturday").toBe("fail");
    expect(at("2026-07-20T07:30:00Z")?.state, "summer time").toBe("pass");
  });

  test("a drill must be good, recent, and of the flip that comes", () => {
    const receipt = {
      kind: "drill",
      ok: true,
      from: "old",
      to: "new",
      epoch: 1,
      writes_held: 3,
      hold_ms: { max: 41.6, p50: 1, p99: 2 },
      failed: 0,
      steps: [],
      why: null,
    } as const;
    const gate = (drill: GateFacts["drill"], drillMaxAgeMs: number | undefined = 60_000) =>
      drillGate({ drill, migration: { authority: "old" } } as GateFacts, limits({ drillMaxAgeMs }));
    expect(
      drillGate({ drill: undefined } as GateFacts, limits({ drillMaxAgeMs: undefined })),
    ).toBeUndefined();
    expect(gate(undefined)?.state).toBe("unknown");
    expect(gate({ receipt, ageMs: 1_000 })).toMatchObject({
      state: "pass",
      value: "good 1 s ago, held writes for 42 ms at most",
    });
    expect(gate({ receipt, ageMs: 61_000 })?.state).toBe("fail");
    expect(gate({ receipt: { ...receipt, ok: false, why: "lag" }, ageMs: 1 })?.why).toContain(
      "lag",
    );
    expect(gate({ receipt: { ...receipt, from: "new", to: "old" }, ageMs: 1 })?.state).toBe("fail");
  });
});
