import { expect, test } from "vitest";
import { gatherFor, Looks, quietFor } from "../../proxy/mirror/rhythm.ts";

test("an empty log is looked at often after traffic, and less the longer it stays empty", () => {
  expect([0, 999, 1_000, 9_999, 10_000, 1e9].map((ms) => quietFor(ms, 0.1))).toEqual([
    1, 1, 5, 5, 20, 20,
  ]);
});

test("looking takes a third of the source's time at most; one look that took very long does not stop the mirror", () => {
  for (const emptyMs of [0, 5_000, 1e6])
    for (const tookMs of [0.01, 0.4, 1.4, 50])
      expect(quietFor(emptyMs, tookMs)).toBeGreaterThanOrEqual(2 * tookMs);
  expect(quietFor(0, 30_000)).toBe(100);
});

test("while writes are held the mirror waits for the message of the fence", () => {
  expect(quietFor(0, 0.1, true)).toBe(20);
});

test("few changes are followed at once; the more there were, the more are let gather, for a tenth of a second at most", () => {
  expect([0, 1, 3].map((changes) => gatherFor(changes, 0))).toEqual([0, 0, 0]);
  const waits = [4, 10, 100, 500, 5_000].map((changes) => gatherFor(changes, 100));
  expect(waits).toEqual(waits.toSorted((a, b) => a - b));
  expect(waits[0]).toBeGreaterThan(0);
  expect(waits.at(-1)).toBe(100);
  // Of a backlog nothing more need gather.
  expect(gatherFor(5_000, 1_001)).toBe(0);
});

test("what looking takes is the shortest of the last looks, and follows when all of them get longer", () => {
  const looks = new Looks();
  expect([0.3, 12, 0.2, 40].map((ms) => looks.took(ms))).toEqual([0.3, 0.3, 0.2, 0.2]);
  const longer = Array.from({ length: 16 }, () => looks.took(1.5));
  expect(longer.at(0)).toBe(0.2);
  expect(longer.at(-1)).toBe(1.5);
});
