import { expect, test } from "vitest";
import { receiptText, statusScreen } from "../../cli/status-view.ts";
import type { Receipt } from "../../store/control/history.ts";
import { NO_SHADOW } from "../../store/control/shadow-report.ts";
import type { Status } from "../../switchover/status.ts";

const RECEIPT: Receipt = {
  kind: "flip",
  ok: true,
  from: "old",
  to: "new",
  epoch: 2,
  writes_held: 41,
  hold_ms: { max: 38.4, p50: 12, p99: 37 },
  failed: 0,
  steps: [{ name: "decide", ms: 3 }],
  why: null,
};

const STATUS: Status = {
  plan: "shop",
  phase: "backfill",
  phase_since: "2026-11-20T12:00:00.000Z",
  authority: "old",
  epoch: 1,
  reads: { new: 0.25 },
  canary_step: 0,
  mirror: {
    direction: "forward",
    lag_ms: 3.2,
    keys: 12_345,
    passes: 678,
    deferred: 2,
    state: "running",
    why: null,
  },
  backfill: {
    state: "running",
    throttle: null,
    rows_per_s: 80_000,
    tables: [
      { table: "users", chunks: 4, done: 4, failed: 0, rows: 20_000, eta_s: 0 },
      { table: "orders", chunks: 10, done: 5, failed: 0, rows: 25_000, eta_s: 125 },
      { table: "notes", chunks: 1, done: 0, failed: 0, rows: 0, eta_s: null },
    ],
  },
  verify: { state: "none", clean_at: null, missing: 0, extra: 0, different: 0, round_trip: null },
  shadow: NO_SHADOW,
  gates: [
    { name: "lag", state: "pass", value: "3 ms", limit: "1000 ms", why: "the mirror keeps up" },
    {
      name: "backfill",
      state: "fail",
      value: "9 of 15 chunks",
      limit: "all chunks",
      why: "rows are still being copied",
    },
  ],
  next: "verify; held back by backfill for now: `crossfade advance --wait` waits",
  quarantine: 0,
  went_back: null,
  flip: null,
  sidecars: [
    { id: "host:127.0.0.1:8080", epoch: 1, seen_ms: 120, holding: false, new_app_down: false },
  ],
  controller: { leading: true, doing: null },
  paused: { backfill: false, mirror: false },
  maintenance: null,
  gap: null,
  databases: {
    old: { reachable: true, state: null, refused_writes: 0 },
    new: { reachable: true, state: null, refused_writes: 3 },
  },
  problems: [],
};

test("the screen is compact, and plain where stdout is no terminal", () => {
  expect(statusScreen(STATUS, new Date("2026-11-20T12:03:00Z"))).toBe(
    `shop   phase backfill for 3 min   authority old   epoch 1
reads       old 75 %   new 25 %
mirror      running   forward   lag 3.2 ms   12,345 keys in 678 passes   2 deferred
backfill    running   45,000 rows   80,000 rows/s
            table   chunks                          rows     left
            users      4/4  ####################  20,000     done
            orders    5/10  ##########..........  25,000    2 min
            notes      0/1  ....................       0  unknown
verify      not yet
quarantine  empty
refused     3 writes to new that bypassed the sidecar
next        verify; held back by backfill for now: \`crossfade advance --wait\` waits
gates       pass    lag 3 ms (limit 1000 ms): the mirror keeps up
            fail    backfill 9 of 15 chunks (limit all chunks): rows are still being copied
sidecars    host:127.0.0.1:8080   epoch 1   seen 120 ms ago`,
  );
});

test("what is wrong stands out: nobody leads, paused, problems, a gap, differences", () => {
  const screen = statusScreen(
    {
      ...STATUS,
      controller: { leading: false, doing: null },
      paused: { backfill: true, mirror: false },
      problems: ["new database: connection refused"],
      gap: "the new database was restored",
      mirror: { ...STATUS.mirror, state: "absent", lag_ms: null, why: "no mirror runs" },
      verify: {
        state: "dirty",
        clean_at: null,
        missing: 1,
        extra: 0,
        different: 2,
        round_trip: null,
      },
      quarantine: 4,
      went_back: {
        at: "2026-11-20T12:00:00Z",
        from: "canary",
        why: "errors: new failed 40 %",
        until: "2026-11-20T13:00:00Z",
      },
      sidecars: [],
      flip: RECEIPT,
    },
    new Date("2026-11-20T12:03:00Z"),
  );
  for (const line of [
    "problem     new database: connection refused",
    "gap         the new database was restored",
    "controller  none leads",
    "went back   by itself from canary, 3 min ago: errors: new failed 40 %",
    "            not again by itself before 2026-11-20T13:00:00Z",
    "paused      backfill",
    "mirror      absent   no mirror runs",
    "verify      dirty   never clean yet   1 missing, 0 extra, 2 different",
    "quarantine  4 keys: see crossfade quarantine list",
    "sidecars    none",
    "last flip   flip old → new: done, 41 writes held, longest 38 ms, p99 37 ms, failed 0, epoch 2",
  ]) {
    expect(screen.split("\n")).toContain(line);
  }
});

test("a receipt says what nobody measured, and why it was undone", () => {
  expect(
    receiptText({
      ...RECEIPT,
      ok: false,
      writes_held: null,
      hold_ms: null,
      failed: null,
      why: "lag was 2 s",
    }),
  ).toBe("flip old → new: undone, no sidecar measured the hold, epoch 2\n            lag was 2 s");
});
