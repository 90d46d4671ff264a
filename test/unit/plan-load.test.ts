import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { PlanError } from "../../config/errors.ts";
import { loadPlan } from "../../config/load.ts";
import { writePlanFile } from "../support/plan-files.ts";

const ENV = {
  OLD_DATABASE_URL: "postgres://app:s3cret@db-old:5432/shop",
  NEW_DATABASE_URL: "postgres://app:s3cret@db-new:5432/shop",
};

/** The smallest plan that holds, with changes: dotted path → value; `undefined` removes it. */
function planWith(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const plan: Record<string, unknown> = {
    name: "shop",
    old: { database: ENV.OLD_DATABASE_URL, app: "http://127.0.0.1:4001" },
    new: { database: ENV.NEW_DATABASE_URL, app: "http://127.0.0.1:4002" },
    forward: { users: { from: "users" } },
  };
  for (const [path, value] of Object.entries(changes)) put(plan, path.split("."), value);
  return plan;
}

function put(at: Record<string, unknown>, [key = "", ...rest]: string[], value: unknown): void {
  if (rest.length > 0) put((at[key] ??= {}) as Record<string, unknown>, rest, value);
  else if (value === undefined) delete at[key];
  else at[key] = value;
}

function issuesOf(content: unknown, env = {}): string[] {
  try {
    loadPlan(writePlanFile(content), env);
  } catch (error) {
    if (!(error instanceof PlanError)) throw error;
    expect(error.message).not.toContain("s3cret");
    return error.issues.map((issue) => `${issue.path}: ${issue.message}`);
  }
  return [];
}

describe("one problem each, in these words", () => {
  const cases: readonly [name: string, changes: Record<string, unknown>, expected: string][] = [
    ["no name", { name: undefined }, "name: found nothing, expected text"],
    ["bad name", { name: "a b" }, 'name: found "a b", expected a name of letters'],
    ["unknown key", { proxi: {} }, "proxi: unknown key, did you mean proxy?"],
    [
      "unknown key, nested",
      { "proxy.lisen": ":1" },
      "proxy.lisen: unknown key, did you mean listen?",
    ],
    [
      "unknown key, case",
      { "gates.verify.maxAge": "1m" },
      "gates.verify.maxAge: unknown key, did you mean max_age?",
    ],
    ["unknown key, nothing near", { "flip.zzz": 1 }, "flip.zzz: unknown key; known here: hold"],
    [
      "unknown key of a mapping",
      { "forward.users.form": "u" },
      "forward.users.form: unknown key, did you mean from?",
    ],
    [
      "SQL beside a module",
      { "forward.users.transform": "./users.ts", "forward.users.where": "id > 0" },
      "forward.users.where: found where beside transform, expected one or the other",
    ],
    ["no old side", { old: undefined }, "old: found nothing, expected a map"],
    ["no database", { "old.database": undefined }, "old.database: found nothing, expected text"],
    ["empty database", { "old.database": "" }, "old.database: found nothing, expected postgres://"],
    [
      "number as database",
      { "old.database": 5432 },
      "old.database: found something else, expected text",
    ],
    [
      "mysql",
      { "old.database": "mysql://app:s3cret@h/db" },
      "old.database: found mysql://, expected postgres://user:password@host:port/database; other databases are not supported yet",
    ],
    [
      "sqlite",
      { "new.database": "sqlite:///x.db" },
      "new.database: found sqlite://, expected postgres://",
    ],
    [
      "no URL",
      { "new.database": "s3cret" },
      "new.database: found text that is no URL, expected postgres://",
    ],
    [
      "@ in a password",
      { "new.database": "postgres://app:s3cret/@h/db" },
      "new.database: found an address that cannot be read",
    ],
    [
      "bad port",
      { "new.database": "postgres://app:s3cret@h:99999/db" },
      "new.database: found an address that cannot be read",
    ],
    [
      "same place",
      { "new.database": ENV.OLD_DATABASE_URL },
      "new: found the same database and schema as old",
    ],
    [
      "same place, other spelling",
      {
        "old.database": "postgres://localhost/x",
        "new.database": "postgresql://b:s3cret@127.0.0.1:5432/x",
      },
      "new: found the same database and schema as old",
    ],
    [
      "our schema",
      { "new.schema": "crossfade" },
      'new.schema: found "crossfade", expected the app\'s schema',
    ],
    ["empty schema", { "old.schema": "" }, 'old.schema: found "", expected the name of a schema'],
    [
      "control database",
      { "control.database": "http://x" },
      "control.database: found http://, expected postgres://",
    ],
    ["redis", { redis: "http://x" }, "redis: found http://, expected redis://host:port"],
    [
      "app without scheme",
      { "old.app": "127.0.0.1:4001" },
      'old.app: found "127.0.0.1:4001", expected http://host:port',
    ],
    [
      "app with a user",
      { "old.app": "http://u:s3cret@h" },
      "old.app: found an address with a user, expected http://host:port",
    ],
    [
      "app is the sidecar",
      { "new.app": "http://localhost:8080" },
      'new.app: found the address of proxy.listen ("http://localhost:8080")',
    ],
    [
      "ports clash",
      { "operate.listen": ":8080" },
      "operate.listen: found port 8080, which proxy.listen has, expected another",
    ],
    [
      "operator port open to others",
      { "operate.listen": "0.0.0.0:8081" },
      "operate.listen: found 0.0.0.0, which others can reach, without operate.tokens",
    ],
    [
      "listen is a port",
      { "proxy.listen": 8080 },
      "proxy.listen: found 8080, expected an address to listen on",
    ],
    [
      "listen is a list",
      { "proxy.listen": [1] },
      "proxy.listen: found a list, expected an address",
    ],
    ["no such feed", { feed: "binlog" }, 'feed: found "binlog", expected trigger or wal'],
    ["feed unknown", { feed: "kafka" }, 'feed: found "kafka", expected trigger or wal'],
    [
      "no forward",
      { forward: undefined },
      "forward: found nothing, expected identity, or a map of tables to mappings",
    ],
    [
      "empty forward",
      { forward: {} },
      "forward: found an empty map, expected at least one table, or identity",
    ],
    [
      "forward misspelt",
      { forward: "identical" },
      'forward: found "identical", expected identity, or a map of tables',
    ],
    [
      "table without mapping",
      { "forward.users": null },
      "forward.users: found nothing, expected a mapping",
    ],
    [
      "empty list of mappings",
      { "forward.users": [] },
      "forward.users: found an empty list, expected at least one mapping",
    ],
    [
      "mapping in a list",
      { "forward.users": [{ from: "a" }, { from: "b", wher: "c" }] },
      "forward.users[1].wher: unknown key, did you mean where?",
    ],
    [
      "no from",
      { "forward.users": {} },
      "forward.users.from: found nothing, expected a table's name",
    ],
    [
      "empty from",
      { "forward.users.from": "" },
      'forward.users.from: found "", expected the name of a table',
    ],
    [
      "from without table",
      { "forward.users.from": { query: "select 1" } },
      "forward.users.from.table: found nothing, expected text",
    ],
    [
      "from: unknown key",
      { "forward.users.from": { table: "u", alzo: {} } },
      "forward.users.from.alzo: unknown key, did you mean also?",
    ],
    [
      "empty query",
      { "forward.users.from": { table: "u", query: " " } },
      'forward.users.from.query: found " ", expected SQL',
    ],
    [
      "long column",
      { "forward.users.set": { ["x".repeat(64)]: "1" } },
      `forward.users.set.${"x".repeat(64)}: as a key: found`,
    ],
    ["NUL in a column", { "forward.users.set": { "a\0b": "1" } }, "at most 63 bytes"],
    ["long table in bytes", { forward: { ["é".repeat(32)]: { from: "u" } } }, "at most 63 bytes"],
    [
      "no expression",
      { "forward.users.set": { name: null } },
      "forward.users.set.name: found nothing, expected SQL",
    ],
    [
      "expression is a list",
      { "forward.users.set": { name: ["a"] } },
      "forward.users.set.name: found a list, expected SQL",
    ],
    [
      "big number",
      { "forward.users.set": { id: 2 ** 60 } },
      "forward.users.set.id: found a number beyond 2^53",
    ],
    ["set is text", { "forward.users.set": "a" }, 'forward.users.set: found "a", expected a map'],
    [
      "own misspelt",
      { "forward.users.own": "nobody" },
      'forward.users.own: found "nobody", expected none, or a map',
    ],
    [
      "own empty",
      { "forward.users.own": {} },
      "forward.users.own: found an empty map, expected at least one column, or none",
    ],
    [
      "client source",
      { "proxy.client.by": ["session"] },
      'proxy.client.by[0]: found "session", expected "header:NAME", "cookie:NAME" or "ip"',
    ],
    ["no client source", { "proxy.client.by": [] }, "proxy.client.by: found an empty list"],
    [
      "consistency",
      { "proxy.consistency": "linear" },
      'proxy.consistency: found "linear", expected causal or strict or eventual',
    ],
    [
      "route",
      { "proxy.routes": [{ match: "/x" }] },
      'proxy.routes[0].match: found "/x", expected "METHOD /path"',
    ],
    [
      "route method",
      { "proxy.routes": [{ match: "GTE /x", kind: "read" }] },
      'proxy.routes[0].match: found "GTE /x"',
    ],
    [
      "route kind",
      { "proxy.routes": [{ match: "GET /x", kind: "reed" }] },
      'proxy.routes[0].kind: found "reed", expected read or write or stream',
    ],
    [
      "route * kind",
      { "proxy.routes": [{ match: "* /x" }] },
      "proxy.routes[0].kind: found nothing, expected read, write or stream",
    ],
    [
      "route twice",
      { "proxy.routes": [{ match: "GET /x", kind: "write" }, { match: "get /x" }] },
      'proxy.routes[1].match: found "GET /x" a second time',
    ],
    [
      "headers",
      { "proxy.headers": "maybe" },
      'proxy.headers: found "maybe", expected true or false',
    ],
    [
      "workers",
      { "backfill.workers": 0 },
      "backfill.workers: found 0, expected a whole number from 1 to 64",
    ],
    [
      "workers text",
      { "backfill.workers": "many" },
      'backfill.workers: found "many", expected a whole number',
    ],
    ["chunk", { "backfill.chunk": 2.5 }, "backfill.chunk: found 2.5, expected a whole number"],
    ["bare duration", { "flip.hold": 500 }, "flip.hold: found 500, expected a time with its unit"],
    [
      "hold too long",
      { "flip.hold": "5m" },
      'flip.hold: found "5m", expected a time from 10ms to 30s',
    ],
    [
      "json path",
      { "shadow.ignore": ["$.a", "a.b"] },
      'shadow.ignore[1]: found "a.b", expected a JSON path such as $.a.b',
    ],
    ["share", { "shadow.sample": 10 }, "shadow.sample: found 10, expected a share"],
    [
      "steps",
      { "canary.steps": ["5%", "1%"] },
      "canary.steps: found steps out of order, expected growing shares",
    ],
    [
      "delta",
      { "gates.canary.errors": "0.1%" },
      'gates.canary.errors: found "0.1%", expected a difference such as +0.1%',
    ],
    [
      "factor",
      { "gates.canary.p99": 1.1 },
      "gates.canary.p99: found 1.1, expected a factor such as 1.2x",
    ],
    [
      "approvals phase",
      { approvals: { "write-knew": 1 } },
      'approvals.write-knew: as a key: found "write-knew", expected a phase after off',
    ],
    [
      "approvals count",
      { approvals: { done: "two" } },
      'approvals.done: found "two", expected a whole number',
    ],
    [
      "notify",
      { notify: ["ftp://x"] },
      'notify[0]: found "ftp://x", expected an http:// or https:// URL',
    ],
  ];

  test.each(cases)("%s", (_, changes, expected) => {
    const issues = issuesOf(planWith(changes));
    expect(issues).toHaveLength(1);
    expect(issues[0]).toContain(expected);
  });
});

test("all problems are reported at once, each with its path", () => {
  expect(
    issuesOf(
      planWith({
        name: 5,
        "proxy.lisen": ":1",
        "flip.hold": "x",
        "forward.users.set": { a: null, b: null },
      }),
    ),
  ).toEqual([
    "name: found 5, expected text",
    "forward.users.set.a: found nothing, expected SQL",
    "forward.users.set.b: found nothing, expected SQL",
    "proxy.lisen: unknown key, did you mean listen?",
    'flip.hold: found "x", expected a time such as 500ms, 5s, 15m, 2h or 1d',
  ]);
});

describe("the file", () => {
  test("missing", () => {
    expect(() => loadPlan("/nonexistent/crossfade.yaml", {})).toThrow(/cannot be read: ENOENT/);
  });
  test.each([
    ["name: a\nold: [\n", "line 3, column 1: "],
    ["name: a\nname: b\n", "line 2, column 1: name stands twice in the same map"],
    ["name: a\n  b: c: d\n", "line 1, column 7: Nested mappings are not allowed"],
    ["name: !secret a\n", "line 1, column 7: Unresolved tag: !secret"],
    ["", ": found nothing, expected a map"],
    ["- a\n", ": found a list, expected a map"],
  ])("%j", (text, expected) => {
    expect(issuesOf(text)[0]).toContain(expected);
  });
});

test("a module's path is relative to the plan's folder", () => {
  const file = writePlanFile(planWith({ "forward.users.transform": "maps/users.ts" }));
  expect(loadPlan(file, {}).forward).toMatchObject({
    mappings: [{ transform: join(dirname(file), "maps/users.ts") }],
  });
});

describe("the environment", () => {
  test("a missing variable names itself and its place, once", () => {
    const plan = planWith({
      "old.database": "${OLD_DATABASE_URL}",
      "proxy.listen": "${LISTEN}",
      "backfill.workers": "${WORKERS:-3}",
    });
    expect(issuesOf(plan)).toEqual([
      "old.database: the environment variable OLD_DATABASE_URL is not set; set it, or write ${OLD_DATABASE_URL:-default}",
      "proxy.listen: the environment variable LISTEN is not set; set it, or write ${LISTEN:-default}",
    ]);
  });

  test("values, defaults, several in one text, numbers", () => {
    const plan = planWith({
      "old.database": "postgres://app:${PASSWORD}@${HOST:-db}:${PORT:-5432}/shop",
      "backfill.workers": "${WORKERS:-3}",
      "proxy.headers": "${HEADERS:-false}",
      redis: "${REDIS_URL:-}",
      "forward.users.where": "name <> '$1' and note <> $${1,2}$$",
    });
    const loaded = loadPlan(writePlanFile(plan), { PASSWORD: "s3cret", HOST: "" });
    expect(loaded.old.database).toBe("postgres://app:s3cret@db:5432/shop");
    expect(loaded.backfill.workers).toBe(3);
    expect(loaded.proxy.headers).toBe(false);
    expect(loaded.redis).toBeUndefined();
    expect(loaded.forward).toMatchObject({
      mappings: [{ where: "name <> '$1' and note <> $${1,2}$$" }],
    });
  });
});
