import { describe, expect, test } from "vitest";
import type { PlanIssue } from "../../config/errors.ts";
import type { Transform } from "../../config/transform-types.ts";
import { loadTransform, transformRow } from "../../store/postgres/transform.ts";
import { transformFile } from "../support/mapping-cases.ts";

const answer = (run: unknown) =>
  transformRow(
    { file: "/plan/words.ts", run: run as Transform, made: ["n", "word"], columns: [] },
    ["id", "words"],
    ["1", null],
  );

test("rows come out as texts in the order of the columns, whatever the order of a row", () => {
  expect(answer((row: unknown) => [{ word: JSON.stringify(row), n: null }])).toEqual({
    kind: "rows",
    rows: [[null, '{"id":"1","words":null}']],
  });
  expect(answer(() => [])).toEqual({ kind: "rows", rows: [] });
});

test("a rejection has its reason, or says that it has none", () => {
  expect(answer(() => ({ reject: "not\0 wanted" }))).toEqual({
    kind: "rejected",
    reason: "not wanted",
  });
  expect(answer(() => ({ reject: "" }))).toEqual({ kind: "rejected", reason: "no reason given" });
});

describe("anything else is a failure that says what was found and what is expected", () => {
  const rows = (row: unknown) => () => [row];
  const cases: readonly [string, unknown, string][] = [
    [
      "throws",
      () => {
        throw new Error("oh no");
      },
      "words.ts threw: oh no",
    ],
    ["nothing", () => undefined, "returned undefined, expected a list of rows"],
    ["a row instead of a list", () => ({ n: "1", word: "" }), "expected a list of rows"],
    ["a promise", async () => [], "returned a promise"],
    ["a list of lists", rows([]), "as a row, expected an object"],
    ["a number", rows({ n: 1, word: "" }), "whose n is a value of type number, expected text"],
    ["no value", rows({ n: "1" }), "whose word is undefined, expected text"],
    [
      "a stranger",
      rows({ n: "1", word: "", x: "" }),
      "with x, which it does not make; expected n, word",
    ],
    ["a zero character", rows({ n: "1", word: "\0" }), "holds a zero character"],
    ["half a character", rows({ n: "1", word: "\ud83d" }), "holds half a character"],
  ];
  for (const [name, run, reason] of cases)
    test(name, () => {
      expect(answer(run)).toEqual({ kind: "failed", reason: expect.stringContaining(reason) });
    });
});

test("a module that cannot be used is a problem of the plan at its path", async () => {
  const issues: PlanIssue[] = [];
  for (const name of ["missing.ts", "async.ts", "nothing.ts"])
    expect(await loadTransform(transformFile(name), name, issues)).toBeUndefined();
  expect(issues).toEqual([
    {
      path: "missing.ts",
      message: expect.stringMatching(/^found no file \/.*missing\.ts, expected/),
    },
    { path: "async.ts", message: expect.stringContaining("exports an async function") },
    {
      path: "nothing.ts",
      message: expect.stringContaining("exports columns, and no function `transform`"),
    },
  ]);
});
