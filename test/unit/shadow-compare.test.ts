import fc from "fast-check";
import { expect, test } from "vitest";
import { matchesPath, parseJsonPath } from "../../config/json-path.ts";
import type { JsonPath } from "../../config/json-path.ts";
import { differences } from "../../proxy/shadow/compare.ts";
import type { Difference } from "../../proxy/shadow/compare.ts";
import { exampleOf, routeOf } from "../../proxy/shadow/example.ts";
import { parseJson } from "../../proxy/shadow/json.ts";
import { ShadowTally } from "../../proxy/shadow/tally.ts";

const path = (text: string): JsonPath => parseJsonPath(text)!;
const paths = (...texts: string[]) => texts.map(path);
const PLAIN = { ignore: [], unordered: [] };

function diff(old: string, next: string, rules: { ignore?: string[]; unordered?: string[] } = {}) {
  const { ignore = [], unordered = [] } = rules;
  const compiled = { ignore: paths(...ignore), unordered: paths(...unordered) };
  return differences(parseJson(old), parseJson(next), compiled).map((each) => each.path);
}

test.each([
  ["$.a.b", ["a", "b"], true],
  ["$.a.b", ["a", "b", "c"], false],
  ["$.a[*].b", ["a", 3, "b"], true],
  ["$.a[1]", ["a", 1], true],
  ["$.a[1]", ["a", 2], false],
  ["$..x", ["x"], true],
  ["$..x", ["a", 0, "x"], true],
  ["$..x", ["a", "x", "y"], false],
  ["$..a..x", ["a", "b", "x"], true],
  ["$.*.x", ["q", "x"], true],
  ["$['a b'].c", ["a b", "c"], true],
  ['$["a"][*]', ["a", 0], true],
])("%s and %j: %s", (text, segments, matches) => {
  expect(matchesPath(path(text), segments)).toBe(matches);
});

test.each(["$", "a.b", "$a", "$.", "$.a.", "$.a[", "$.a[x]", "$.[0]", "$...a", ""])(
  "%j is no path",
  (text) => {
    expect(parseJsonPath(text)).toBeUndefined();
  },
);

test.each([
  ['{"a":1}', '{"a":1.0}', []],
  ['{"a":100}', '{"a":1e2}', []],
  ["[1,2]", "[1,3]", ["$[*]"]],
  ["[1,2]", "[1]", ["$"]],
  ['{"a":null}', "{}", ["$.a"]],
  ['{"a":{"b":1}}', '{"a":[1]}', ["$.a"]],
  ['{"a b":1}', '{"a b":2}', ["$['a b']"]],
  ["12345678901234567890", "12345678901234567891", ["$"]],
  ["12345678901234567890", "1.2345678901234567890e19", []],
  ["1.00000000000000000000", "1", []],
  ["1e400", "1e401", ["$"]],
  ['{"__proto__":1}', "{}", ["$.__proto__"]],
  ['"1"', "1", ["$"]],
])("%s and %s differ at %j", (old, next, expected) => {
  expect(diff(old, next)).toEqual(expected);
  expect(diff(next, old)).toEqual(expected);
});

test("ignored places are not compared, lists without order in any order", () => {
  const old = '{"at":1,"items":[{"id":1,"etag":"x"},{"id":2,"etag":"y"}]}';
  const next = '{"items":[{"id":2,"etag":"p"},{"id":1,"etag":"q"}]}';
  expect(diff(old, next)).not.toEqual([]);
  expect(diff(old, next, { ignore: ["$.at", "$..etag"], unordered: ["$.items"] })).toEqual([]);
  expect(diff(old, next, { ignore: ["$.at", "$..etag"] })).toEqual(["$.items[*].id"]);
});

test("a JSON value is the same as itself, however it is written", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value);
      expect(diff(text, JSON.stringify(value, undefined, 2))).toEqual([]);
    }),
  );
});

test("one changed leaf is found, at its path and nowhere else", () => {
  const leaf = fc.oneof(fc.integer(), fc.string(), fc.boolean());
  fc.assert(
    fc.property(fc.array(fc.dictionary(fc.string(), leaf), { minLength: 1 }), leaf, (items, to) => {
      const changed = items.map((item, i) => (i === 0 ? { ...item, changed: { to } } : item));
      const found = differences(items, changed, PLAIN);
      expect(found.map(({ segments }) => segments)).toEqual([[0, "changed"]]);
      expect(differences(items, changed, { ...PLAIN, ignore: paths("$[0].changed") })).toEqual([]);
    }),
  );
});

test("the order of an unordered list never matters", () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue()), fc.nat(), (items, by) => {
      const at = by % (items.length + 1);
      const turned = { list: [...items.slice(at), ...items.slice(0, at)] };
      const rules = { ...PLAIN, unordered: paths("$.list") };
      expect(differences({ list: items }, turned, rules)).toEqual([]);
    }),
  );
});

test.each([
  ["/users/42/orders?x=1", "GET /users/:id/orders"],
  ["/v1/items/6f1c2a4e-8a52-4a7e-9d44-0d5b2f9d7c11", "GET /v1/items/:id"],
  ["/by/anna@example.org", "GET /by/:id"],
  ["/reset-password/abcdef/new", "GET /reset-password/:id/new"],
  [`/share/${"a".repeat(43)}`, "GET /share/:id"],
  ["http://shop.example/cart", "GET /cart"],
  ["/", "GET /"],
])("the route of %s is %s", (url, route) => {
  expect(routeOf("GET", url)).toBe(route);
});

test("what Postgres would not store, or is too long, never gets into a report", () => {
  const odd = `x${"\u{1F600}".repeat(300)}`;
  const tally = new ShadowTally();
  const keep = (difference: Difference) =>
    tally.mismatch("GET /", difference.path, () =>
      exampleOf({ method: "GET", url: "/" }, { old: 200, new: 200 }, difference, []),
    );
  for (const value of [odd, `\0${odd}`, "\ud800"]) {
    for (const difference of differences({ [value]: value }, {}, PLAIN)) keep(difference);
    for (const difference of differences(value, 1, PLAIN)) keep(difference);
  }
  const { groups, noise_paths } = tally.report([{ route: "GET /", path: `$.\0${odd}` }]);
  const texts = [
    ...groups.flatMap(({ path: at, example }) => [at, example.old, example.new]),
    ...noise_paths.map((each) => each.path),
  ];
  expect(texts.length).toBeGreaterThan(6);
  for (const text of texts) {
    expect(text.length).toBeLessThanOrEqual(200);
    expect(text.isWellFormed() && !text.includes("\0")).toBe(true);
  }
});

test("examples hold nothing that is redacted", () => {
  const [difference] = differences(
    { user: { email: "a@b.c", password: "p", name: "Anna" } },
    { user: null },
    PLAIN,
  );
  const request = { method: "GET", url: "/users/a@b.c?token=t&page=2" };
  const example = exampleOf(request, { old: 200, new: 200 }, difference!, paths("$..email"));
  expect(example).toEqual({
    request: "GET /users/:id?token&page",
    statuses: { old: 200, new: 200 },
    old: '{"email":"[redacted]","password":"[redacted]","name":"Anna"}',
    new: "null",
  });
  const tokens = { method: "GET", url: `/orders/42/${"a".repeat(43)}/access_token/abc` };
  expect(exampleOf(tokens, { old: 200, new: 200 }, difference!, []).request).toBe(
    "GET /orders/42/:id/access_token/:id",
  );
  const [byKey] = differences({ "a@b.c": { name: 1 } }, { "a@b.c": { name: 2 } }, PLAIN);
  expect(byKey?.path).toBe("$['…'].name");
  const [inside] = differences({ email: { at: "a@b.c" } }, { email: { at: "x@b.c" } }, PLAIN);
  expect(exampleOf(request, { old: 200, new: 200 }, inside!, paths("$.email"))).toMatchObject({
    old: '"[redacted]"',
    new: '"[redacted]"',
  });
});
