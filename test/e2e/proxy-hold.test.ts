import http from "node:http";
import net from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { HoldGate } from "../../proxy/hold.ts";
import { send, startApp, startTestSidecar } from "../support/sidecar.ts";
import type { TestApp, TestSidecar, TestSidecarOptions } from "../support/sidecar.ts";

const LEASE = 60_000;

async function start(
  options: TestSidecarOptions = {},
): Promise<TestSidecar & { old: TestApp; next: TestApp }> {
  const old = (options.old as TestApp | undefined) ?? (await startApp("old"));
  const next = await startApp("new");
  const started = await startTestSidecar({
    new: next,
    state: { phase: "read-new" },
    ...options,
    old,
  });
  await expect.poll(() => started.sidecar.stats().reads.share).toBe(1);
  return { ...started, old, next };
}

const post = (path = "/", headers: Record<string, string> = {}) => ({
  path,
  options: { method: "POST", body: path, headers },
});

async function write(url: string, path = "/", headers: Record<string, string> = {}) {
  const { options } = post(path, headers);
  return send(url + path, options);
}

test("held writes wait, reads go on; released in order to the new authority with nothing lost", async () => {
  const { url, source, sidecar, old, next } = await start();
  source.hold(7, LEASE);
  expect(source.acknowledged.at(-1)).toEqual({ epoch: 1, hold: 7, inFlightWrites: 0 });
  const writes = [];
  for (let n = 0; n < 5; n++) {
    writes.push(write(url, `/${n}`));
    await expect.poll(() => sidecar.stats().held.now).toBe(n + 1);
  }
  expect((await send(`${url}/read`)).status).toBe(200);
  expect(old.seen.filter(({ method }) => method === "POST")).toEqual([]);
  source.set({ phase: "write-new", authority: "new", epoch: 2 });
  expect(source.acknowledged.at(-1)).toEqual({ epoch: 2, hold: 7, inFlightWrites: 0 });
  expect(sidecar.stats().held.now).toBe(5);
  source.set({ hold: null });
  const answers = await Promise.all(writes);
  expect(answers.map(({ status, body }) => [status, body])).toEqual(Array(5).fill([200, "new"]));
  const arrived = next.seen.filter(({ method }) => method === "POST");
  expect(arrived.map(({ url: path }) => path).toSorted()).toEqual(["/0", "/1", "/2", "/3", "/4"]);
  expect(arrived.map(({ body }) => body.toString()).toSorted()).toEqual([
    "/0",
    "/1",
    "/2",
    "/3",
    "/4",
  ]);
  await expect.poll(() => source.reported?.held.attempt).toBe(7);
  const { held } = sidecar.stats();
  expect(held).toMatchObject({ now: 0, attempt: 7, writes: 5, failed: 0, left: 0 });
  expect(held.durations_ms).toHaveLength(5);
  expect(held.max_ms).toBe(Math.max(...held.durations_ms));
  expect(source.acknowledged.at(-1)).toEqual({ epoch: 2, hold: null, inFlightWrites: 0 });
});

test("what was held is reported when all of it is answered, and until then said to be still to come", async () => {
  const answer = Promise.withResolvers<void>();
  const old = await startApp("old", async (request, response) => {
    request.resume();
    await answer.promise;
    response.end("old");
  });
  const { url, source, sidecar } = await start({ old });
  source.hold(7, LEASE);
  const written = write(url);
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  expect(sidecar.stats().held).toMatchObject({ pending: 7, attempt: null });
  source.set({ hold: null });
  expect(source.reported?.held).toMatchObject({ pending: 7, attempt: null });
  expect(source.acknowledged.at(-1)).toMatchObject({ hold: null });
  answer.resolve();
  await written;
  await expect
    .poll(() => source.reported?.held)
    .toMatchObject({ pending: null, attempt: 7, writes: 1, failed: 0 });
});

test("a hold that held nobody is reported too", async () => {
  const { source } = await start();
  source.hold(3, LEASE);
  source.set({ hold: null });
  expect(source.reported?.held).toMatchObject({ attempt: 3, writes: 0, durations_ms: [] });
});

test("a hold is acknowledged when the writes in flight are answered; a write caused by one of them passes", async () => {
  const answer = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  let sidecarUrl = "";
  let nested = "";
  const old = await startApp("old", async (request, response) => {
    request.resume();
    if (request.url === "/outer") {
      arrived.resolve();
      await answer.promise;
      // The app calls itself through the sidecar, passing the id on as apps do.
      nested = (
        await write(sidecarUrl, "/nested", {
          "x-request-id": String(request.headers["x-request-id"]),
        })
      ).body;
    }
    response.end(`old ${request.url}`);
  });
  const { url, source, sidecar } = await start({ old });
  sidecarUrl = url;
  const outer = write(url, "/outer");
  await arrived.promise;
  source.hold(1, LEASE);
  const other = write(url, "/other");
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  expect(source.acknowledged.at(-1)).toEqual({ epoch: 1, hold: null, inFlightWrites: 1 });
  answer.resolve();
  expect((await outer).body).toBe("old /outer");
  expect(nested).toBe("old /nested");
  await expect
    .poll(() => source.acknowledged.at(-1))
    .toEqual({ epoch: 1, hold: 1, inFlightWrites: 0 });
  source.set({ hold: null });
  expect((await other).body).toBe("old /other");
});

test("a client that does not read the answer to its write is not waited for", async () => {
  const size = 32 * 1024 * 1024;
  const old = await startApp("old", (_request, response) => {
    response.end(Buffer.alloc(size, "a"));
  });
  const { url, source, sidecar } = await start({ old });
  const answer = await new Promise<http.IncomingMessage>((resolve) =>
    http.request(url, { method: "POST" }, resolve).end(),
  );
  expect(sidecar.stats().in_flight_writes).toBe(1);
  source.hold(1, LEASE);
  await expect
    .poll(() => source.acknowledged.at(-1))
    .toEqual({ epoch: 1, hold: 1, inFlightWrites: 0 });
  let received = 0;
  for await (const part of answer) received += (part as Buffer).length;
  expect(received).toBe(size);
  expect(source.acknowledged.at(-1)).toEqual({ epoch: 1, hold: 1, inFlightWrites: 0 });
});

test("streams and upgrades are not waited for", async () => {
  const old = await startApp("old", (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\n\n");
  });
  const { url, source } = await start({
    old,
    proxy: { routes: [{ method: "POST", path: "/stream", kind: "stream", side: undefined }] },
  });
  const answer = await new Promise<http.IncomingMessage>((resolve) =>
    http.request(`${url}/stream`, { method: "POST" }, resolve).end(),
  );
  source.hold(1, LEASE);
  expect(source.acknowledged.at(-1)).toMatchObject({ hold: 1 });
  answer.destroy();
});

test("at its deadline the sidecar lifts the hold itself and routes as before", async () => {
  const { url, source, sidecar } = await start();
  source.hold(2, LEASE);
  const held = write(url);
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  source.hold(2, 20);
  const answer = await held;
  expect([answer.status, answer.body]).toEqual([200, "old"]);
  expect(source.acknowledged.at(-1)).toMatchObject({ hold: null });
  // The same lease heard again later holds nobody.
  source.set({});
  expect((await write(url)).status).toBe(200);
  expect(source.reported?.held).toMatchObject({ attempt: 2, writes: 1 });
});

test("a write that outlives the limit gets 503 and is not sent", async () => {
  const { url, source, sidecar, old } = await start({ limits: { heldMs: 100 } });
  source.hold(2, LEASE);
  const answer = write(url);
  expect(await answer).toMatchObject({ status: 503, headers: { "retry-after": "1" } });
  source.set({ hold: null });
  expect(old.seen).toEqual([]);
  expect(sidecar.stats().held).toMatchObject({ attempt: 2, writes: 1, failed: 1 });
});

test("the queue is bounded", async () => {
  const { url, source, sidecar } = await start({ limits: { maxHeld: 2 } });
  source.hold(2, LEASE);
  const waiting = [write(url), write(url)];
  await expect.poll(() => sidecar.stats().held.now).toBe(2);
  const answer = await write(url);
  expect(answer.status).toBe(503);
  expect(JSON.parse(answer.body)).toMatchObject({ error: "writes_held" });
  source.set({ hold: null });
  expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([200, 200]);
});

test("the queue is bounded in bytes: of heads, and of contents read before the hold; who leaves gives them back", async () => {
  const { url, source, sidecar, old } = await start({ limits: { maxHeldBytes: 40_000 } });
  const slow = http.request(url, { method: "POST", headers: { "content-length": 30_000 } });
  slow.on("error", () => {});
  slow.write("x");
  await expect.poll(() => sidecar.stats().in_flight).toBe(1);
  source.hold(2, LEASE);
  slow.end("x".repeat(29_999));
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  const large = { "x-large": "x".repeat(12_000) };
  const refused = await write(url, "/refused", large);
  expect([refused.status, refused.headers["retry-after"]]).toEqual([503, "1"]);
  slow.destroy();
  await expect.poll(() => sidecar.stats().held.now).toBe(0);
  const waiting = write(url, "/waiting", large);
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  source.set({ hold: null });
  expect((await waiting).status).toBe(200);
  expect(old.seen.map(({ url: path }) => path)).toEqual(["/waiting"]);
});

const record = { began() {}, ended() {}, held() {}, released() {}, refused() {}, left() {} };
const GATE = { limitMs: LEASE, maxHeld: 9, maxHeldBytes: 900, onChange() {}, record };

test("a lease that is renewed before its end holds on, until the limit of what waits", async () => {
  const gate = new HoldGate({ ...GATE, limitMs: 200 });
  const until = (ms: number) => gate.update({ attempt: 1, deadline: performance.now() + ms });
  until(100);
  const outcome = new Promise((resolve) => {
    gate.enter({
      requestId: "a",
      bytes: 1,
      go: () => resolve("sent"),
      refuse: (_, why) => resolve(why),
    });
  });
  until(LEASE);
  expect(await outcome).toBe("limit");
  gate.stop();
});

test("held writes leave in the order they came, and one that has left the queue is not sent", () => {
  const sent: number[] = [];
  const gate = new HoldGate(GATE);
  gate.update({ attempt: 1, deadline: performance.now() + LEASE });
  const leave = [0, 1, 2, 3, 4].map((n) =>
    gate.enter({ requestId: `${n}`, bytes: 1, go: () => void sent.push(n), refuse() {} }),
  );
  leave[2]?.();
  gate.update(null);
  expect(sent).toEqual([0, 1, 3, 4]);
  gate.stop();
});

test("writes of one client: pipelined they arrive in order, over connections of their own each is sent once", async () => {
  const { url, source, sidecar, old } = await start();
  const connect = () => {
    const socket = net.connect(Number(new URL(url).port), "127.0.0.1");
    onTestFinished(() => void socket.destroy());
    return socket;
  };
  const write = (n: number) =>
    `POST /${n} HTTP/1.1\r\nhost: a\r\nauthorization: ann\r\ncontent-length: 0\r\n\r\n`;
  for (let round = 0; round < 5; round++) {
    old.seen.length = 0;
    source.hold(round + 1, LEASE);
    const sockets = [connect(), connect(), connect()] as const;
    for (const [n, socket] of sockets.entries()) {
      socket.write(n === 0 ? write(0) + write(10) + write(20) : write(n));
      await expect.poll(() => sidecar.stats().held.now).toBe(n + 1);
    }
    source.set({ hold: null });
    await expect.poll(() => old.seen.length).toBe(5);
    const paths = old.seen.map(({ url: path }) => path);
    // Each connection has one of its own to the app: there they may overtake each other.
    expect(paths.toSorted()).toEqual(["/0", "/1", "/10", "/2", "/20"]);
    expect(paths.filter((path) => path.endsWith("0"))).toEqual(["/0", "/10", "/20"]);
  }
});

test("a client that leaves while held is never sent, and no body is read while held", async () => {
  const { url, source, sidecar, old } = await start();
  source.hold(2, LEASE);
  const size = 64 << 20;
  const leaving = http
    .request(url, { method: "POST", headers: { "content-length": size } })
    .on("error", () => {});
  let sent = 0;
  const part = Buffer.alloc(1 << 16);
  const more = () => {
    while (sent < size && leaving.write(part)) sent += part.length;
  };
  leaving.on("drain", more);
  more();
  const small = http.request(url, { method: "POST" }).on("error", () => {});
  small.end("small");
  await expect.poll(() => sidecar.stats().held.now).toBe(2);
  small.destroy();
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  // What the sidecar does not read stays with the client, but for what connections buffer.
  expect(sent).toBeLessThan(32 << 20);
  leaving.destroy();
  source.set({ hold: null });
  expect((await write(url, "/after")).status).toBe(200);
  expect(old.seen.map(({ url: path }) => path)).toEqual(["/after"]);
});

test("a write that also asks for HTTP/2 (h2c, as Java's client does) is held like any other", async () => {
  const { url, source, sidecar, old, next } = await start();
  source.hold(1, LEASE);
  const held = write(url, "/h2c", {
    connection: "Upgrade, HTTP2-Settings",
    upgrade: "h2c",
    "http2-settings": "AAMAAABkAAQAAP__",
  });
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  source.set({ phase: "write-new", authority: "new", epoch: 2 });
  source.set({ hold: null });
  expect(await held).toMatchObject({ status: 200, body: "new" });
  expect(next.seen.map(({ body }) => body.toString())).toEqual(["/h2c"]);
  expect(Object.keys(next.seen[0]?.headers ?? {})).not.toContain("upgrade");
  expect(Object.keys(next.seen[0]?.headers ?? {})).not.toContain("http2-settings");
  expect(old.seen).toEqual([]);
});

test("expect: 100-continue is not answered while held", async () => {
  const { url, source, sidecar } = await start();
  source.hold(2, LEASE);
  let continued = false;
  const request = http.request(url, {
    method: "POST",
    headers: { expect: "100-continue", "content-length": 2 },
  });
  request.on("continue", () => {
    continued = true;
    request.end("ok");
  });
  request.flushHeaders();
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  expect(continued).toBe(false);
  const answer = new Promise<http.IncomingMessage>((resolve) => request.on("response", resolve));
  source.set({ hold: null });
  expect((await answer).statusCode).toBe(200);
  expect(continued).toBe(true);
});

test("a slow upload of a small body neither keeps a write in flight nor slips past a hold", async () => {
  const { url, source, sidecar, old } = await start();
  const request = http.request(url, { method: "POST", headers: { "content-length": 4 } });
  const answer = new Promise<http.IncomingMessage>((resolve) => request.on("response", resolve));
  request.write("ab");
  await expect.poll(() => sidecar.stats().in_flight).toBe(1);
  source.hold(2, LEASE);
  expect(source.acknowledged.at(-1)).toMatchObject({ hold: 2, inFlightWrites: 0 });
  request.end("cd");
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  expect(old.seen).toEqual([]);
  source.set({ hold: null });
  expect((await answer).statusCode).toBe(200);
  expect(old.seen[0]?.body.toString()).toBe("abcd");
});

test("a sidecar that starts during a flip starts holding", async () => {
  const deadline = performance.now() + LEASE;
  const old = await startApp("old");
  const { url, source, sidecar } = await startTestSidecar({
    old,
    state: { hold: { attempt: 9, deadline } },
  });
  expect(source.acknowledged.at(-1)).toEqual({ epoch: 1, hold: 9, inFlightWrites: 0 });
  const answer = write(url);
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  source.set({ hold: null });
  expect((await answer).status).toBe(200);
});

test("flips under traffic: every write is answered once, by the side that is the authority", async () => {
  let open: "old" | "new" = "old";
  const applied: string[] = [];
  // Like an app behind the guard: refuses writes while its side is closed.
  const app = (side: "old" | "new") =>
    startApp(side, (request, response) => {
      request.resume();
      if (request.method === "POST" && open !== side) response.writeHead(500);
      else if (request.method === "POST") applied.push(request.url ?? "");
      setTimeout(() => response.end(side), Math.random() * 4);
    });
  const { url, source } = await startTestSidecar({
    old: await app("old"),
    new: await app("new"),
    state: { phase: "read-new" },
  });
  let running = true;
  const answers: [string, number][] = [];
  const clients = Array.from({ length: 8 }, async (_, client) => {
    for (let n = 0; running; n++) {
      const path = `/${client}-${n}`;
      answers.push([path, (await write(url, path, { authorization: `c${client}` })).status]);
    }
  });
  for (let attempt = 1; attempt <= 6; attempt++) {
    await expect.poll(() => answers.length).toBeGreaterThan(attempt * 40);
    source.hold(attempt, LEASE);
    await expect.poll(() => source.acknowledged.at(-1)?.hold).toBe(attempt);
    open = open === "old" ? "new" : "old";
    source.set({
      authority: open,
      epoch: attempt + 1,
      phase: open === "old" ? "read-new" : "write-new",
    });
    source.set({ hold: null });
  }
  running = false;
  await Promise.all(clients);
  expect(answers.filter(([, status]) => status !== 200)).toEqual([]);
  expect(applied.toSorted()).toEqual(answers.map(([path]) => path).toSorted());
});
