import { describe, expect, test } from "vitest";
import { Sequence } from "../../loadtest/soak/sequence.ts";
import { judgeSoak, type SoakFindings } from "../../loadtest/soak/verdict.ts";
import type { Side } from "../../config/words.ts";
import type { Receipt } from "../../store/control/history.ts";

const receipt = (to: Side, failed: number | null = 0): Receipt => ({
  kind: "flip",
  ok: true,
  from: to === "new" ? "old" : "new",
  to,
  epoch: 2,
  writes_held: 3,
  hold_ms: { max: 20, p50: 5, p99: 20 },
  failed,
  steps: [],
  why: null,
});
const memory = (mb: (at: number) => number, seconds = 600) =>
  Array.from({ length: seconds }, (_, at) => ({ at, mb: mb(at) }));
const good: SoakFindings = {
  seconds: 600,
  requests: { requests: 100, failed: 0, checked: 50, stale: 0 },
  writes: { acknowledged: 30, lost: 0 },
  websockets: { connections: 2, failed: 0, messages: 9, lost: 0, duplicated: 0, damaged: 0 },
  events: { streams: 2, failed: 0, events: 9, lost: 0, duplicated: 0 },
  uploads: { uploads: 2, failed: 0, megabytes: 9, mismatched: 0 },
  flips: { receipts: [receipt("new"), receipt("old")], undone: [] },
  memory: memory(() => 100),
  unsampled: 0,
};
const wrong = (more: Partial<SoakFindings>) => judgeSoak({ ...good, ...more }).wrong;

const COUNTS = {
  requests: { some: ["requests", "checked"], none: ["failed", "stale"] },
  writes: { some: ["acknowledged"], none: ["lost"] },
  websockets: {
    some: ["connections", "messages"],
    none: ["failed", "lost", "duplicated", "damaged"],
  },
  events: { some: ["streams", "events"], none: ["failed", "lost", "duplicated"] },
  uploads: { some: ["uploads", "megabytes"], none: ["failed", "mismatched"] },
} as const;

describe("the verdict of a soak", () => {
  test("is good where everything was looked at and nothing failed", () => {
    expect(judgeSoak(good)).toMatchObject({ ok: true, wrong: [], memory: { flat: true } });
  });

  test.each(
    Object.entries(COUNTS).flatMap(([part, { some, none }]) => [
      ...some.map((key) => [part, key, 0, `${part}: no ${key}`] as const),
      ...none.map((key) => [part, key, 1, `${part}: 1 ${key}`] as const),
    ]),
  )("%s: fails by %s alone", (part, key, count, sentence) => {
    const counts = good[part as keyof typeof COUNTS];
    const found = judgeSoak({ ...good, [part]: { ...counts, [key]: count } });
    expect(found).toMatchObject({ ok: false, wrong: [sentence] });
    // Every count that there is stands in the table above.
    const { some, none } = COUNTS[part as keyof typeof COUNTS];
    expect(Object.keys(counts ?? {}).toSorted()).toEqual([...some, ...none].toSorted());
  });

  test.each(Object.keys(COUNTS))("fails when %s were not looked at", (part) => {
    expect(wrong({ [part]: undefined })).toEqual([`${part}: not looked at`]);
  });

  test("fails without a flip in each direction; one that was undone is none", () => {
    const undone = { ...receipt("old"), ok: false };
    const flips = { receipts: [receipt("new"), undone], undone: [] };
    expect(wrong({ flips })).toEqual(["flips: none to old"]);
    expect(wrong({ flips: { receipts: [], undone: ["no"] } })).toHaveLength(2);
  });

  test("fails by a write that a flip says it failed", () => {
    const flips = { receipts: [receipt("new", 2), receipt("old", null)], undone: [] };
    expect(wrong({ flips })).toEqual(["flips: 2 writes failed in one to new"]);
  });

  test("fails when the sidecar's process was gone", () => {
    expect(wrong({ unsampled: 1 })).toEqual(["memory: the sidecar's process was gone 1 times"]);
  });
});

describe("memory", () => {
  test("may grow by 15 MB, and by a tenth of what is more than 150 MB", () => {
    const step = (from: number, to: number) => memory((at) => (at < 400 ? from : to));
    expect(wrong({ memory: step(100, 115) })).toEqual([]);
    expect(wrong({ memory: step(100, 115.2) })).toHaveLength(1);
    expect(wrong({ memory: step(300, 330) })).toEqual([]);
    expect(wrong({ memory: step(300, 331) })).toHaveLength(1);
  });

  test("is not judged by its warm-up, and its slope is per minute", () => {
    expect(wrong({ memory: memory((at) => (at < 60 ? 0 : 100)) })).toEqual([]);
    const growing = judgeSoak({ ...good, memory: memory((at) => at / 20) });
    expect(growing.memory.slope_mb_per_minute).toBeCloseTo(3);
    expect(growing.memory.flat).toBe(false);
  });

  test("of too few samples is not flat", () => {
    expect(wrong({ memory: memory(() => 100, 80) })).toEqual([
      "memory: 20 samples after the warm-up, expected 30 or more",
    ]);
    expect(wrong({ memory: [] })).toHaveLength(1);
  });
});

describe("numbers one after the other", () => {
  const lostAndDuplicated = (numbers: readonly number[], end: number) => {
    const sequence = new Sequence();
    for (const n of numbers) sequence.take(n);
    sequence.end(end);
    return [sequence.lost, sequence.duplicated];
  };

  test.each([
    [[0, 1, 2], 3, [0, 0]],
    [[0, 2], 3, [1, 0]],
    [[1, 2], 3, [1, 0]],
    [[0, 1], 3, [1, 0]],
    [[0, 1, 1, 2], 3, [0, 1]],
    [[0, 2, 1], 3, [1, 1]],
    [[], 3, [3, 0]],
  ])("%j of %i: lost and duplicated %j", (numbers, end, expected) => {
    expect(lostAndDuplicated(numbers, end)).toEqual(expected);
  });
});
