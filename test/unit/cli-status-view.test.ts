import { expect, test } from "vitest";
import { receiptText, statusScreen } from "../../cli/status-view.ts";
import type { Receipt } from "../../store/control/history.ts";
import { STATUS } from "../support/status.ts";

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
back        \`crossfade rollback\` goes to dual-write
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
      backfill: {
        ...STATUS.backfill,
        deferred: [
          { kind: "index", table: "orders", name: "by_day", state: "dropped", error: "no room" },
          { kind: "index", table: "orders", name: "by_name", state: "built", error: null },
        ],
      },
      verify: {
        state: "dirty",
        why: null,
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
    "rebuild     1 of 2 are back on new",
    "            index by_day of orders: dropped   no room",
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

test("a comparison that did not get to its end says why", () => {
  const verify = { ...STATUS.verify, state: "failed", why: "not compared: orders" } as const;
  expect(statusScreen({ ...STATUS, verify }).split("\n")).toContain(
    "verify      failed   not compared: orders   never clean yet",
  );
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
