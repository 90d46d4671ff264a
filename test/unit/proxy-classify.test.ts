import { expect, test } from "vitest";
import type { RoutePlan } from "../../config/plan-types.ts";
import { createClassifier } from "../../proxy/classify.ts";

const routes: RoutePlan[] = [
  { method: "POST", path: "/search", kind: "read", side: undefined },
  { method: "GET", path: "/users/:id/logout", kind: "write", side: undefined },
  { method: "*", path: "/admin/*", kind: "write", side: "old" },
  { method: "GET", path: "/events", kind: "stream", side: "authority" },
];

test.each([
  ["GET", "/", "read", undefined],
  ["HEAD", "/x", "read", undefined],
  ["OPTIONS", "*", "read", undefined],
  ["POST", "/", "write", undefined],
  ["PROPFIND", "/", "write", undefined],
  ["QUERY", "/", "write", undefined],
  ["POST", "/search?q=1", "read", undefined],
  ["PUT", "/search", "write", undefined],
  ["GET", "/users/7/logout", "write", undefined],
  ["GET", "/users/7%2F8/logout?x", "write", undefined],
  ["GET", "/admin/a/b", "write", "old"],
  ["GET", "/events", "stream", "authority"],
  ["GET", "http://shop.example/events", "stream", "authority"],
  ["GET", "/%zz", "read", undefined],
  ["POST", "/%", "write", undefined],
])("%s %s is a %s pinned to %s", (method, url, kind, pin) => {
  expect(createClassifier(routes)(method, url)).toMatchObject({ kind, pin });
});

test("without routes the method decides", () => {
  const classify = createClassifier([]);
  expect([classify("GET", "/").kind, classify("DELETE", "/").kind]).toEqual(["read", "write"]);
});

test("a route that the router refuses is an error of the plan", () => {
  const twice = { method: "GET", path: "/a", kind: "write", side: undefined } as const;
  expect(() => createClassifier([twice, twice])).toThrow(/proxy.routes: "GET \/a"/);
});
