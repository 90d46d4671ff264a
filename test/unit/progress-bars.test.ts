import { expect, test } from "vitest";
import { barText } from "../../cli/progress-bars.ts";

const TABLE = {
  table: "users",
  chunks: 10,
  done: 4,
  failed: 0,
  claimed: 1,
  rows: 20_000,
  estRows: 50_000,
  estRowsLeft: 30_000,
  startedAt: undefined,
  finishedAt: undefined,
  ms: 2_000,
  error: undefined,
};

test("a bar says how many rows, and how long it takes at the rate so far", () => {
  expect(barText(TABLE, 7)).toEqual({ table: "users  ", rows: "20,000", left: "3 s left" });
  expect(barText({ ...TABLE, done: 0, rows: 0 }, 5).left).toBe("time left unknown");
  expect(barText({ ...TABLE, done: 10 }, 5).left).toBe("done");
  expect(barText({ ...TABLE, failed: 2 }, 5).left).toBe("2 chunks failed");
});
