import { stripVTControlCharacters } from "node:util";
import { expect, test } from "vitest";
import { clip, watchScreen } from "../../cli/watch-view.ts";
import { NO_SHADOW } from "../../store/control/shadow-report.ts";
import type { Status } from "../../switchover/status.ts";

const NOW = new Date("2026-11-20T12:03:00Z");

/** A migration with far more of everything than fits. */
function large(): Status {
  return {
    plan: "shop",
    phase: "backfill",
    phase_since: "2026-11-20T12:00:00.000Z",
    authority: "old",
    epoch: 1,
    reads: { new: 0 },
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
      throttle: "p99 of the app is 140 % of its usual 12 ms, which is more than the plan allows",
      rows_per_s: 80_000,
      tables: Array.from({ length: 60 }, (_, i) => ({
        table: `table_with_a_rather_long_name_${i}`,
        chunks: 10,
        done: i < 55 ? 10 : 3,
        failed: 0,
        rows: 1_000,
        eta_s: i < 55 ? 0 : 90,
      })),
    },
    verify: { state: "none", clean_at: null, missing: 0, extra: 0, different: 0, round_trip: null },
    shadow: NO_SHADOW,
    gates: [
      { name: "lag", state: "pass", value: "3 ms", limit: "1000 ms", why: null },
      {
        name: "backfill",
        state: "fail",
        value: "9 of 15",
        limit: "all",
        why: "still being copied",
      },
    ],
    quarantine: 2,
    flip: null,
    sidecars: Array.from({ length: 30 }, (_, i) => ({
      id: `host-${i}:127.0.0.1:8080`,
      epoch: 1,
      seen_ms: 120,
      holding: false,
      new_app_down: false,
    })),
    controller: { leading: true, doing: null },
    paused: { backfill: false, mirror: false },
    next: "",
    went_back: null,
    maintenance: null,
    gap: null,
    databases: {
      old: { reachable: true, state: null, refused_writes: 0 },
      new: { reachable: true, state: null, refused_writes: 0 },
    },
    problems: [],
  } as Status;
}

test("one screen of 80 by 24, whatever there is to show; what is left out is counted", () => {
  const lines = watchScreen(large(), { columns: 80, rows: 24 }, NOW).split("\n");
  expect(lines.length).toBeLessThanOrEqual(23);
  for (const line of lines)
    expect(stripVTControlCharacters(line).length, line).toBeLessThanOrEqual(80);
  const screen = stripVTControlCharacters(lines.join("\n"));
  expect(screen).toContain("off dual-write [backfill] verify");
  expect(screen).toContain("! keys in quarantine");
  expect(screen).toMatch(/gates +fail +backfill 9 of 15/);
  expect(screen).toMatch(/tables +table_with_a_rather_long #+\.+ 2 min left/);
  expect(screen.match(/… \d+ more/g)).toHaveLength(2);
});

test("a tall terminal shows everything, a tiny one still fits", () => {
  const all = watchScreen(large(), { columns: 200, rows: 200 }, NOW);
  expect(all).not.toMatch(/… \d+ more/);
  expect(all).toContain("host-29");
  expect(watchScreen(large(), { columns: 20, rows: 5 }, NOW).split("\n")).toHaveLength(4);
});

test("colours take no room and are never cut in half", () => {
  const red = "\u001B[31m";
  const end = "\u001B[39m";
  expect(clip(`${red}abcdef${end}ghi`, 4)).toBe(`${red}abc…${end}`);
  expect(clip(`${red}abc${end}de`, 5)).toBe(`${red}abc${end}de`);
  expect(clip("plain", 80)).toBe("plain");
});
