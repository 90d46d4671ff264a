import { expect, test } from "vitest";
import type { Phase, Side } from "../../config/words.ts";
import { NOWHERE, send, startApp, startTestSidecar } from "../support/sidecar.ts";
import type { TestSidecar } from "../support/sidecar.ts";

async function sideOf(url: string, options: Parameters<typeof send>[1] = {}): Promise<string> {
  const answer = await send(url, options);
  expect(answer.status).toBe(200);
  expect(answer.headers["crossfade-side"]).toBe(answer.body);
  return answer.body;
}

const client = (name: string) => ({ headers: { authorization: name } });

const TABLE: Record<Phase, { authority: Side; reads: Side; readsNew: number }> = {
  off: { authority: "old", reads: "old", readsNew: 0 },
  "dual-write": { authority: "old", reads: "old", readsNew: 0 },
  backfill: { authority: "old", reads: "old", readsNew: 0 },
  verify: { authority: "old", reads: "old", readsNew: 0 },
  shadow: { authority: "old", reads: "old", readsNew: 0 },
  canary: { authority: "old", reads: "new", readsNew: 1 },
  "read-new": { authority: "old", reads: "new", readsNew: 1 },
  "write-new": { authority: "new", reads: "new", readsNew: 1 },
  done: { authority: "new", reads: "new", readsNew: 1 },
};

test("reads and writes go where the phase says, and the app is told its side", async () => {
  const old = await startApp("old");
  const next = await startApp("new");
  const { url, source, sidecar } = await startTestSidecar({
    old,
    new: next,
    proxy: {
      routes: [
        { method: "POST", path: "/search", kind: "read", side: undefined },
        { method: "GET", path: "/logout", kind: "write", side: undefined },
        { method: "*", path: "/admin/*", kind: "write", side: "new" },
        { method: "GET", path: "/events/:id", kind: "stream", side: "authority" },
        // Whatever the share: this one is not ready on new, that one has never been on old.
        { method: "GET", path: "/reports/*", kind: "read", side: "old" },
        { method: "GET", path: "/tags", kind: "read", side: "new" },
      ],
    },
  });
  let epoch = 1;
  for (const [phase, { authority, reads, readsNew }] of Object.entries(TABLE)) {
    if (authority !== source.state()?.authority) epoch += 1;
    source.set({ phase: phase as Phase, authority, readsNew, epoch });
    await expect.poll(() => sidecar.stats().reads.why).toBe(null);
    const sides = [];
    // A client of its own each: writes bind their clients.
    for (const [method, path] of REQUESTS) {
      sides.push(await sideOf(url + path, { method, ...client(`${phase} ${method} ${path}`) }));
    }
    const pinned = ["old", "new"];
    // Heard of by charts and metrics: also where new answers because it is the authority.
    expect(sidecar.stats().reads.share).toBe(readsNew);
    expect([phase, sides]).toEqual([
      phase,
      [reads, reads, authority, authority, "new", authority, ...pinned],
    ]);
  }
  expect(old.seen.every(({ headers }) => headers["crossfade-side"] === "old")).toBe(true);
  expect(next.seen.every(({ headers }) => headers["crossfade-side"] === "new")).toBe(true);
});

const REQUESTS = [
  ["GET", "/"],
  ["POST", "/search"],
  ["PUT", "/x"],
  ["GET", "/logout"],
  ["GET", "/admin/users"],
  ["GET", "/events/7"],
  ["GET", "/reports/2026/may"],
  ["GET", "/tags"],
] as const;

async function sidesOf(url: string, clients: readonly string[]): Promise<string[]> {
  return Promise.all(clients.map((name) => sideOf(url, client(name))));
}

test("the canary is sticky: who is on new stays there while the share grows", async () => {
  const { url, source, sidecar } = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
    state: { phase: "canary", readsNew: 0.1 },
  });
  const clients = Array.from({ length: 100 }, (_, n) => `client ${n}`);
  let before = new Set<string>();
  for (const readsNew of [0.1, 0.3, 0.6, 1]) {
    source.set({ readsNew });
    await expect.poll(() => sidecar.stats().reads.share).toBe(readsNew);
    const sides = await sidesOf(url, clients);
    const onNew = new Set(clients.filter((_, n) => sides[n] === "new"));
    expect([...before].filter((name) => !onNew.has(name))).toEqual([]);
    expect(Math.abs(onNew.size / 100 - readsNew)).toBeLessThan(0.2);
    before = onNew;
  }
  expect(before.size).toBe(100);
});

async function inCanary(
  next: string | Awaited<ReturnType<typeof startApp>>,
  fallbackHeadMs = 200,
): Promise<TestSidecar> {
  const started = await startTestSidecar({
    old: await startApp("old"),
    new: next,
    state: { phase: "canary", readsNew: 1 },
    limits: {
      timeouts: { connectMs: 500, headMs: 5_000, fallbackHeadMs },
      breaker: { restMs: 300 },
    },
    proxy: { routes: [{ method: "POST", path: "/search", kind: "read", side: undefined }] },
  });
  await expect.poll(() => started.sidecar.stats().reads.share).toBe(1);
  return started;
}

test("a read that new cannot answer in canary is answered by old and counted against new", async () => {
  const failing = await startApp("new", (request, response) => {
    if (request.url === "/reset") request.socket.destroy();
    else if (request.url !== "/slow") response.writeHead(500).end("broken");
  });
  const { url, sidecar } = await inCanary(failing);
  const paths = ["/500", "/reset", "/slow"];
  for (const path of paths) expect(await sideOf(url + path, client(path))).toBe("old");
  expect(await sideOf(`${url}/search`, { method: "POST", body: "q", ...client("s") })).toBe("old");
  const { fallbacks, traffic, window } = sidecar.stats();
  expect(fallbacks).toBe(4);
  expect(window, "what the canary is judged by").toMatchObject({
    key: expect.stringContaining("canary") as string,
    reads: { new: { requests: 4, errors: 4 }, old: { requests: 4, errors: 0 } },
  });
  expect(traffic.find(({ side, kind }) => side === "new" && kind === "read")).toMatchObject({
    requests: 4,
    errors: 4,
  });
  expect(traffic.find(({ side, kind }) => side === "old" && kind === "read")).toMatchObject({
    requests: 4,
    errors: 0,
  });
});

test("a new app that is not there falls back too; outside of canary nothing does", async () => {
  const { url, source, sidecar } = await inCanary(NOWHERE);
  expect(await sideOf(url, client("a"))).toBe("old");
  source.set({ phase: "read-new" });
  await expect.poll(() => sidecar.stats().reads.share).toBe(1);
  expect((await send(url, client("b"))).status).toBe(502);
});

test.each(["canary", "read-new"] as const)(
  "%s: a new app that is dead is asked no more, status says so, and it comes back by itself",
  async (phase) => {
    let dead = true;
    let asked = 0;
    const flaky = await startApp("new", (request, response) => {
      asked += 1;
      if (dead) request.socket.destroy();
      else response.end("new");
    });
    const { url, source, sidecar } = await inCanary(flaky);
    source.set({ phase });
    await expect.poll(() => sidecar.stats().reads.share).toBe(1);
    const breaker = () => sidecar.stats().reads.breaker;
    await expect.poll(async () => [await send(url, client("a")), breaker()][1]).toBe("open");
    const before = asked;
    for (let n = 0; n < 10; n++) expect(await sideOf(url, client(`c${n}`))).toBe("old");
    // A try that fails costs its client nothing.
    await expect
      .poll(async () => {
        expect(await sideOf(url, client("b"))).toBe("old");
        return asked;
      })
      .toBeGreaterThan(before);
    expect([breaker(), sidecar.stats().reads.breaker_opened]).toEqual(["open", 1]);
    dead = false;
    await expect.poll(() => sideOf(url, client("new here"))).toBe("new");
    expect(breaker()).toBe("closed");
  },
);

test("a stream sent with a read cannot be sent twice: it fails as it is", async () => {
  const failing = await startApp("new", (_request, response) => response.writeHead(503).end());
  const { url } = await inCanary(failing);
  const answer = await send(`${url}/search`, {
    method: "POST",
    body: Buffer.alloc(1 << 20),
    ...client("c"),
  });
  expect(answer.status).toBe(503);
});

test("eventual: neither fences nor waits, the share alone decides", async () => {
  const { url, fences, source } = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
    proxy: { consistency: "eventual" },
    state: { phase: "read-new" },
  });
  fences.follow = false;
  expect(await sideOf(url, { method: "POST", ...client("a") })).toBe("old");
  expect(await sideOf(url, client("a"))).toBe("new");
  source.link({ alone: false });
  expect(await sideOf(url, client("a"))).toBe("new");
});

test("crossfade-side in a request is honoured with an operator's token, for reads; the app sees neither", async () => {
  const old = await startApp("old");
  const next = await startApp("new");
  const { url } = await startTestSidecar({
    old,
    new: next,
    operatorTokens: "viewer:just-looking,operator:may-do-things",
  });
  const asking = (token: string, side = "new") => ({
    headers: { "crossfade-side": side, "crossfade-token": token },
  });
  expect(await sideOf(url, asking("may-do-things"))).toBe("new");
  expect(await sideOf(url, asking("may-do-things", "old"))).toBe("old");
  expect(await sideOf(url, asking("just-looking"))).toBe("old");
  expect(await sideOf(url, asking("anything else"))).toBe("old");
  expect(await sideOf(url, asking("may-do-things", "both"))).toBe("old");
  expect(await sideOf(url, { headers: { "crossfade-side": "new" } })).toBe("old");
  expect(await sideOf(url, { method: "POST", ...asking("may-do-things") })).toBe("old");
  expect(next.seen.map(({ headers }) => headers["crossfade-side"])).toEqual(["new"]);
  for (const { headers } of [...old.seen, ...next.seen])
    expect(headers).not.toHaveProperty("crossfade-token");
});

test("without operator tokens in the plan crossfade-side in a request means nothing", async () => {
  const { url } = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
  });
  const headers = { "crossfade-side": "new", "crossfade-token": "" };
  expect(await sideOf(url, { headers })).toBe("old");
});
