import { stripVTControlCharacters } from "node:util";
import { expect, test } from "vitest";
import { clip, watchScreen } from "../../cli/watch-view.ts";
import type { Status } from "../../switchover/status.ts";
import { STATUS } from "../support/status.ts";

const NOW = new Date("2026-11-20T12:03:00Z");

/** A migration with far more of everything than fits. */
function large(changes: Partial<Status> = {}): Status {
  return {
    ...STATUS,
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
      deferred: [],
    },
    quarantine: 2,
    sidecars: Array.from({ length: 30 }, (_, i) => ({
      id: `host-${i}:127.0.0.1:8080`,
      epoch: 1,
      seen_ms: 120,
      holding: false,
      new_app_down: false,
    })),
    ...changes,
  };
}

test("one screen of 80 by 24, whatever there is to show; what is left out is counted", () => {
  const lines = watchScreen(large(), { columns: 80, rows: 24 }, NOW).split("\n");
  expect(lines.length).toBeLessThanOrEqual(23);
  for (const line of lines)
    expect(stripVTControlCharacters(line).length, line).toBeLessThanOrEqual(80);
  const screen = stripVTControlCharacters(lines.join("\n"));
  expect(screen).toContain("off dual-write [backfill] verify");
  expect(screen).toContain("shop   ! Needs attention: 2 keys in quarantine");
  expect(screen).toMatch(/gates +fail +backfill 9 of 15/);
  // What comes next is never what is left out, nor cut.
  expect(screen.replaceAll(/\n +/g, " ")).toContain(`next        ${STATUS.next}\nback `);
  expect(screen).toContain("back        `crossfade rollback` goes to dual-write");
  expect(screen).toMatch(/tables +table_with_a_rather_long #+\.+ 2 min left/);
  expect(screen.match(/… \d+ more/g)).toHaveLength(2);
});

test("who looks for the first time sees that it went back by itself, from where and why, and until when it stays", () => {
  const lines = watchScreen(
    large({
      phase: "shadow",
      went_back: {
        at: "2026-11-20T12:00:00Z",
        from: "canary",
        why: "errors: new failed 40 %",
        until: "2026-11-20T13:00:00Z",
      },
    }),
    { columns: 80, rows: 24 },
    NOW,
  ).split("\n");
  expect(lines.length).toBeLessThanOrEqual(23);
  const screen = stripVTControlCharacters(lines.join("\n"));
  expect(screen).toContain("shop   ! Needs attention, and 1 more: went back by itself from canary");
  expect(screen).toContain("went back   by itself from canary, 3 min ago: errors: new failed 40 %");
  expect(screen).toContain("not again by itself before 2026-11-20T13:00:00Z");
  expect(screen).toContain("next ");
});

test("one line says whether somebody has to look", () => {
  const health = (changes: Partial<Status>) =>
    stripVTControlCharacters(
      watchScreen({ ...STATUS, ...changes }, { columns: 80, rows: 24 }, NOW).split("\n")[0] ?? "",
    );
  expect(health({})).toBe("shop   ✓ All is well");
  const mirror = { ...STATUS.mirror, state: "failed", why: "the disk of new is full" } as const;
  expect(health({ mirror })).toContain("✗ Trouble: the mirror is failed: the disk of new is full");
  expect(health({ maintenance: "back soon" })).toContain("! Needs attention: maintenance: writes");
  expect(health({ gap: "new was restored", mirror })).toContain(
    "✗ Trouble, and 1 more: gap: new was restored",
  );
});

test("there is a way back in every phase that has one", () => {
  const back = (phase: Status["phase"]) =>
    watchScreen({ ...STATUS, phase }, { columns: 80, rows: 24 }, NOW)
      .split("\n")
      .find((text) => text.startsWith("back "));
  expect(back("off")).toBeUndefined();
  expect(back("dual-write")).toContain("goes to off");
  expect(back("write-new")).toContain("goes to read-new, with a flip");
  expect(back("done")).toContain("no way back but a restore");
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
