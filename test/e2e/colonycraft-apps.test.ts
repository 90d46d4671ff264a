import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startNewApp } from "../../examples/colonycraft/new-app.ts";
import { startOldApp } from "../../examples/colonycraft/old-app.ts";
import type { RunningApp } from "../../examples/colonycraft/api.ts";
import { createSchema, seed, userIds } from "../../examples/colonycraft/seed.ts";
import { checkBothSchemas } from "../../examples/support/check-schemas.ts";
import { type Traffic, startTraffic } from "../../examples/support/traffic.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";

const [ada, bob] = userIds({ users: 2 }) as [string, string];
const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;

interface Step {
  readonly method?: string;
  readonly path: string;
  readonly body?: unknown;
  readonly status: number;
}

const post = (body: unknown, status = 201): Step => ({
  method: "POST",
  path: "/conversations",
  body,
  status,
});
const put = (path: string, body: unknown, status = 200): Step => ({
  method: "PUT",
  path: `/conversations/${path}`,
  body,
  status,
});
const patch = (path: string, body: unknown, status = 200): Step => ({
  method: "PATCH",
  path: `/conversations/${path}`,
  body,
  status,
});
const remove = (n: number, status = 204): Step => ({
  method: "DELETE",
  path: `/conversations/${id(n)}`,
  status,
});
const get = (path: string, status = 200): Step => ({ path, status });

/** Everything a client can do, and much it should not. */
const STEPS: readonly Step[] = [
  get("/healthz"),
  get(`/conversations?user=${ada}`),
  post({ id: id(1), user: ada, title: "plain" }),
  post({
    id: id(2),
    user: ada,
    title: "one",
    category: "work",
    metadata: { 10: "a", model: "x", 9: null, deep: { category: "mine" } },
  }),
  post({
    id: id(3),
    user: ada,
    title: "many – ü 🎈",
    tags: ["work", "zz", "aa", "O'Neill", 'say "hi"', "back\\slash", " a:b "],
  }),
  post({ id: id(4).toUpperCase(), user: bob, title: "", tags: ["work"], category: "work" }),
  post({ id: id(1), user: ada, title: "taken" }, 409),
  post({ id: id(5), user: id(404), title: "no such user" }, 422),
  post({ id: id(5), user: id(404), title: "no such user", tags: ["with tags"] }, 422),
  post({ id: id(6), user: ada, title: "two categories", category: "b", tags: ["a", "b"] }, 400),
  post({ id: id(6), user: ada, title: "twice", tags: ["a", "a"] }, 400),
  post({ id: id(6), user: ada, title: "too long", tags: ["x".repeat(51)] }, 400),
  post({ id: id(6), user: ada, title: "empty", category: "" }, 400),
  post({ id: id(6), user: ada, title: "reserved", metadata: { category: "x" } }, 400),
  post({ id: id(6), user: ada, title: "reserved", metadata: { more_tags: [] } }, 400),
  post({ id: id(6), user: ada, title: "nul \u0000" }, 400),
  post({ id: id(6), user: ada, title: "half a pair \ud800" }, 400),
  post({ id: id(6), user: ada, title: "deep nul", metadata: { a: ["\u0000"] } }, 400),
  post({ id: id(6), user: ada, title: "wrong", tags: "a" }, 400),
  post({ id: id(6), user: ada, title: "wrong", color: "red" }, 400),
  post({ id: id(6), user: ada }, 400),
  post({ id: "six", user: ada, title: "no uuid" }, 400),
  post({ id: id(7), user: ada, title: "longest", tags: ["🎈".repeat(50)] }),
  get(`/conversations/${id(3)}`),
  put(`${id(3)}/category`, { category: "aa" }),
  put(`${id(3)}/category`, { category: "new one" }),
  put(`${id(3)}/category`, {}, 400),
  put(`${id(404)}/category`, { category: "x" }, 404),
  put(`${id(1)}/category`, { category: "first" }),
  put(`${id(1)}/category`, { category: null }),
  put(`${id(1)}/category`, { category: null }),
  patch(id(2), { title: "other title" }),
  patch(id(2), { tags: ["zz", "work"] }),
  patch(id(2), { tags: [] }),
  patch(id(2), { metadata: {} }),
  patch(id(2), {}),
  patch(id(404), { title: "x" }, 404),
  put(id(4), { title: "replaced", tags: ["c", "b", "a"], metadata: { n: 1.5 } }),
  put(id(4), { title: "replaced", tags: ["a", "c", "b"] }),
  put(id(4), { title: "nothing else" }),
  put(id(4), { tags: ["title is missing"] }, 400),
  put(id(404), { title: "x" }, 404),
  remove(3),
  remove(3, 404),
  get(`/conversations/${id(3)}`, 404),
  post({ id: id(3), user: bob, title: "again, for another user", tags: ["work"] }),
  get(`/conversations?user=${ada}`),
  get(`/conversations?user=${ada}&limit=2`),
  get(`/conversations?user=${bob}`),
  get(`/conversations?user=${id(404)}`),
  get(`/conversations?user=${ada}&limit=0`, 400),
  get(`/conversations?user=${ada}&limit=101`, 400),
  get("/conversations", 400),
  get("/conversations/none", 400),
  get("/nowhere", 404),
];

/** Status and body. Only times differ between two servers asked one after the other: they are checked and cut out. */
async function ask(app: RunningApp, { method = "GET", path, body }: Step): Promise<string> {
  const response = await fetch(app.url + path, {
    method,
    ...(body === undefined
      ? {}
      : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  const text = (await response.text()).replaceAll(
    /"(created|updated)_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"/g,
    '"$1_at":"…"',
  );
  return `${response.status} ${response.headers.get("content-type")} ${text}`;
}

describe("two apps, one API", () => {
  let old: RunningApp;
  let next: RunningApp;

  beforeAll(async () => {
    const { oldUrl, newUrl } = await createDatabasePair();
    await Promise.all([createSchema("old", oldUrl), createSchema("new", newUrl)]);
    await seed({ databaseUrl: oldUrl, users: 2, conversations: 0 });
    const users = await withClient(oldUrl, (client) => client.query("select * from users"));
    await withClient(newUrl, (client) =>
      client.query("insert into users select * from json_populate_recordset(null::users, $1)", [
        JSON.stringify(users.rows),
      ]),
    );
    old = await startOldApp({ databaseUrl: oldUrl });
    next = await startNewApp({ databaseUrl: newUrl });
  });
  afterAll(() => Promise.all([old.close(), next.close()]));

  test("the same requests get the same answers", async () => {
    for (const step of STEPS) {
      const name = `${step.method ?? "GET"} ${step.path} ${JSON.stringify(step.body)}`;
      const [first, second] = await Promise.all([ask(old, step), ask(next, step)]);
      expect(`${name} → ${second}`).toBe(`${name} → ${first}`);
      expect(`${name} → ${first}`).toContain(`→ ${step.status} `);
    }
  });

  test("writers of one user at the same time wait for each other and do not deadlock", async () => {
    const tags = ["t1", "t2", "t3", "t4", "t5", "t6"];
    for (const app of [old, next]) {
      const writes = Array.from({ length: 40 }, (_, i) =>
        ask(
          app,
          i % 4 === 0
            ? put(id(1), { title: "x", tags })
            : post({ user: ada, title: `p${i}`, tags: i % 2 === 0 ? tags : tags.toReversed() }),
        ),
      );
      expect((await Promise.all(writes)).filter((answer) => !/^20[01] /.test(answer))).toEqual([]);
    }
  });
});

describe("traffic", () => {
  const ids = userIds({ users: 8 });
  let urls: { oldUrl: string; newUrl: string };
  let old: RunningApp;
  let next: RunningApp;
  let traffic: Traffic | undefined;

  beforeAll(async () => {
    urls = await createDatabasePair();
    await Promise.all([createSchema("old", urls.oldUrl), createSchema("new", urls.newUrl)]);
    for (const databaseUrl of [urls.oldUrl])
      await seed({ databaseUrl, users: 8, conversations: 500 });
    await withClient(urls.newUrl, (client) =>
      client.query("insert into users select unnest($1::uuid[]), 'user', now()", [ids]),
    );
    old = await startOldApp({ databaseUrl: urls.oldUrl });
    next = await startNewApp({ databaseUrl: urls.newUrl });
  });
  afterAll(async () => {
    await traffic?.stop();
    await Promise.all([old.close(), next.close()]);
  });

  const run = async (app: RunningApp, requests: number) => {
    traffic = startTraffic({ baseUrl: app.url, users: ids, clients: 4, ratePerSecond: 500 });
    const running = traffic;
    await expect
      .poll(() => running.counters.requests, { timeout: 30_000 })
      .toBeGreaterThan(requests);
    await running.pause();
    const paused = running.counters;
    const expected = running.expected();
    running.resume();
    await expect
      .poll(() => running.counters.requests, { timeout: 30_000 })
      .toBeGreaterThan(paused.requests);
    await running.stop();
    return { counters: running.counters, paused, expected, final: running.expected() };
  };

  test("against the old app: nothing fails, nothing is stale, every write is stored", async () => {
    const { counters, final } = await run(old, 1_000);
    expect(counters).toMatchObject({
      failed: 0,
      failures: [],
      stales: [],
      reads: { stale: 0 },
      writes: { uncertain: 0 },
    });
    expect(counters.writes.total / counters.requests).toBeGreaterThan(0.25);
    expect(counters.writes.total / counters.requests).toBeLessThan(0.35);
    expect(counters.reads.checked).toBeGreaterThan(500);
    expect(counters.latency.writes.p50_ms).toBeGreaterThan(0);

    // Nothing is mirrored here: the old side has it all, the new side lacks it, and the check says exactly that.
    const check = await checkBothSchemas({ ...urls, expected: final });
    expect(check.acknowledged).toBe(counters.writes.acknowledged);
    expect(check.acknowledged).toBe(check.in_both + check.lost);
    expect(check.lost).toBeGreaterThan(0);
    expect(new Set(check.examples.map(({ side }) => side))).toEqual(new Set(["new"]));
    expect([...final.values()].some(({ conversation }) => conversation === null)).toBe(true);
  });

  test("against the new app: the same", async () => {
    const { counters, paused, expected, final } = await run(next, 600);
    expect(counters).toMatchObject({
      failed: 0,
      failures: [],
      stales: [],
      reads: { stale: 0 },
      writes: { uncertain: 0 },
    });
    const sum = [...expected.values()].reduce((total, { writes }) => total + writes, 0);
    expect(sum).toBe(paused.writes.acknowledged);
    const check = await checkBothSchemas({ ...urls, expected: final });
    expect(new Set(check.examples.map(({ side }) => side))).toEqual(new Set(["old"]));
  });

  test("a service that loses a write, forgets a tag or fails is caught", async () => {
    traffic = startTraffic({
      baseUrl: old.url,
      users: ids,
      clients: 2,
      ratePerSecond: 400,
      seed: 2,
    });
    const running = traffic;
    await expect
      .poll(() => running.counters.writes.acknowledged, { timeout: 30_000 })
      .toBeGreaterThan(50);
    await withClient(urls.oldUrl, (client) =>
      client.query("update conversations set metadata = metadata - 'category' - 'more_tags'"),
    );
    await expect.poll(() => running.counters.reads.stale, { timeout: 30_000 }).toBeGreaterThan(0);
    await withClient(urls.oldUrl, (client) =>
      client.query("alter table conversations add constraint no check (title = '') not valid"),
    );
    await expect
      .poll(() => running.counters.writes.uncertain, { timeout: 30_000 })
      .toBeGreaterThan(0);
    await running.stop();
    expect(running.counters.stales[0]?.why).toContain("was acknowledged");
    expect(running.counters.failures[0]?.why).toContain("answered 500");
    expect(running.counters.failed).toBeGreaterThan(0);
  });

  test("an app that is not there is a failure, not a crash", async () => {
    traffic = startTraffic({ baseUrl: "http://127.0.0.1:1", users: ids, clients: 2 });
    const running = traffic;
    await expect.poll(() => running.counters.failed).toBeGreaterThan(3);
    await running.stop();
    expect(running.counters.failed).toBe(running.counters.requests);
    expect(running.expected().size).toBe(0);
  });
});
