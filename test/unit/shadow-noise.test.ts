import { expect, test } from "vitest";
import { NoiseBook, judge } from "../../proxy/shadow/noise.ts";

const at = (...paths: string[]) => paths.map((path) => ({ path, segments: [], old: 1, new: 2 }));

test("a place where old always differs from itself is noise, of its route only", () => {
  const book = new NoiseBook();
  for (let i = 0; i < 3; i += 1) book.observe("GET /a", ["$.at"]);
  expect(book.of("GET /a")).toEqual(["$.at"]);
  expect(book.of("GET /b")).toEqual([]);
  expect(book.all()).toEqual([{ route: "GET /a", path: "$.at" }]);
});

test("a place that is written now and then is not noise", () => {
  const book = new NoiseBook();
  for (let i = 0; i < 20; i += 1) book.observe("GET /a", i % 4 === 0 ? ["$.name"] : []);
  expect(book.of("GET /a")).toEqual([]);
});

test.each([
  ["nothing found", [], [], [], "same"],
  ["learned", ["$.at"], [], ["$.at"], "noise"],
  ["below what is learned", ["$.meta.at"], [], ["$.meta"], "noise"],
  ["a name that begins the same", ["$.at2"], [], ["$.at"], "mismatch"],
  ["changed meanwhile", ["$.items[*].name"], ["$.items"], [], "unsettled"],
  ["old stood still", ["$.name"], [], [], "mismatch"],
] as const)("%s", (_name, found, between, learned, kind) => {
  expect(judge(at(...found), between, learned).kind).toBe(kind);
});

test("what is left beside noise and changes is the mismatch", () => {
  const judgement = judge(at("$.at", "$.now", "$.name"), ["$.now"], ["$.at"]);
  expect(judgement).toMatchObject({ kind: "mismatch", differences: [{ path: "$.name" }] });
});
