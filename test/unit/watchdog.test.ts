import { expect, test } from "vitest";
import type { RollbackOnPlan } from "../../config/policy.ts";
import type { Phase } from "../../config/words.ts";
import { SideWindow } from "../../proxy/side-window.ts";
import { windowKey } from "../../store/control/side-reads.ts";
import type { GateFacts } from "../../switchover/gate-facts.ts";
import { Watchdog } from "../../switchover/watchdog.ts";

const LIMITS: RollbackOnPlan = {
  errors: 0.05,
  p99Ms: 200,
  mismatch: 0.01,
  lagMs: 1_000,
  verify: true,
  samples: 100,
  withinMs: 30_000,
  cooldownMs: 0,
};

/** A fleet that serves; `at` goes on by a second per look. */
function world(phase: Phase = "read-new", limits: Partial<RollbackOnPlan> = {}) {
  const watchdog = new Watchdog({ ...LIMITS, ...limits });
  const migration = { phase, epoch: 1, readsNew: 1, phaseSince: new Date(0) };
  let at = 0;
  const sidecars = new Map<string, SideWindow>();
  const sidecar = (id: string) => {
    const window = new SideWindow();
    window.enter(windowKey(migration));
    sidecars.set(id, window);
    return window;
  };
  let lag = 0;
  let run: object | undefined;
  const look = (seconds = 1) => {
    at += seconds * 1_000;
    const facts = {
      migration,
      lastRun: run,
      mirror: { seenMs: 0, stats: { epoch: 1, lag_ms: lag } },
      sidecars: [...sidecars].map(([id, window]) => ({
        id,
        seenMs: 0,
        stats: { window: window.report() },
      })),
    } as unknown as GateFacts;
    return watchdog.observe(facts, at);
  };
  const serve = (
    window: SideWindow,
    count: number,
    failed: number,
    ms = 10,
    side: "old" | "new" = "new",
    kind: "read" | "write" = "read",
  ) => {
    for (let n = 0; n < count; n += 1) window.record(side, kind, n < failed, ms);
  };
  return {
    look,
    serve,
    sidecar,
    lag: (ms: number) => (lag = ms),
    run: (found: object) => (run = found),
    migration,
  };
}

test("errors of the last half minute count, not those of all time", () => {
  const { look, serve, sidecar } = world();
  const window = sidecar("a");
  serve(window, 100_000, 0);
  expect(look()).toBeUndefined();
  serve(window, 200, 20);
  expect(look()).toEqual({
    name: "errors",
    value: "new failed 10 % of 200 requests in 30 s",
    limit: "5 %",
  });
  serve(window, 2_000, 0);
  expect(look()).toBeUndefined();
  expect(look(31)).toBeUndefined();
});

test("too few requests say nothing, and several sidecars are one fleet", () => {
  const { look, serve, sidecar } = world();
  const [a, b] = [sidecar("a"), sidecar("b")];
  look();
  serve(a, 60, 60);
  expect(look()).toBeUndefined();
  serve(b, 60, 60);
  expect(look()?.name).toBe("errors");
});

test("a sidecar that restarted counts from nothing", () => {
  const { look, serve, sidecar } = world();
  serve(sidecar("a"), 5_000, 0);
  look();
  serve(sidecar("a"), 150, 150);
  expect(look()?.value).toContain("100 % of 150");
});

test("where old fails as much, going back helps nobody", () => {
  const { look, serve, sidecar } = world("canary");
  const window = sidecar("a");
  look();
  serve(window, 200, 40);
  serve(window, 200, 40, 10, "old");
  expect(look()).toBeUndefined();
});

test("writes count where new takes them", () => {
  for (const phase of ["read-new", "write-new"] as const) {
    const { look, serve, sidecar } = world(phase);
    const window = sidecar("a");
    look();
    serve(window, 200, 200, 10, "new", "write");
    expect(look()?.name).toBe(phase === "write-new" ? "errors" : undefined);
  }
});

test("latency, lag and differences", () => {
  const slow = world();
  const window = slow.sidecar("a");
  slow.look();
  slow.serve(window, 200, 0, 300);
  expect(slow.look()).toMatchObject({ name: "p99", limit: "200 ms" });

  const behind = world();
  behind.lag(5_000);
  for (let n = 0; n < 20; n += 1) expect(behind.look()).toBeUndefined();
  behind.lag(10);
  behind.look();
  behind.lag(5_000);
  for (let n = 0; n < 20; n += 1)
    expect(behind.look(), "one good moment within the time").toBeUndefined();
  for (let n = 0; n < 20; n += 1) behind.look();
  expect(behind.look()).toMatchObject({ name: "lag" });

  const dirty = world();
  dirty.run({
    state: "dirty",
    allTables: true,
    startedAt: new Date(1),
    missing: 1,
    extra: 2,
    different: 3,
  });
  expect(dirty.look()).toMatchObject({ name: "verify", value: "1 missing, 2 extra, 3 different" });
  const before = world();
  before.run({
    state: "dirty",
    allTables: true,
    startedAt: new Date(-1),
    missing: 1,
    extra: 0,
    different: 0,
  });
  expect(before.look(), "a run of an earlier phase").toBeUndefined();
});

test("nothing is watched before clients depend on new", () => {
  const { look, serve, sidecar } = world("shadow");
  const window = sidecar("a");
  look();
  serve(window, 500, 500);
  expect(look()).toBeUndefined();
});
