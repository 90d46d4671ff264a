import http from "node:http";
import { expect, test } from "vitest";
import { send, startApp, startTestSidecar } from "../support/sidecar.ts";
import type { TestSidecar, TestSidecarOptions } from "../support/sidecar.ts";

const as = (name: string, more: object = {}) => ({ headers: { authorization: name }, ...more });
const write = (name: string) => as(name, { method: "POST", body: "x" });

/** In read-new with the gate open; then the mirror is stopped, so that fences pass by hand. */
async function inReadNew(options: TestSidecarOptions = {}): Promise<TestSidecar> {
  const started = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
    state: { phase: "read-new" },
    lagMs: 60_000,
    ...options,
  });
  await expect.poll(() => started.sidecar.stats().reads.share).toBe(1);
  started.fences.follow = false;
  return started;
}

/** Lets the mirror pass what was written, until the client reads from new again. */
async function untilNew(
  { url, source, fences }: TestSidecar,
  options: Parameters<typeof send>[1],
): Promise<void> {
  const look = async () => {
    source.pass(fences.written);
    return side(url, options);
  };
  await expect.poll(look).toBe("new");
}

async function side(url: string, options: Parameters<typeof send>[1]): Promise<unknown> {
  return (await send(url, options)).headers["crossfade-side"];
}

test("a client reads its own write from the authority until its fence has passed; others read new", async () => {
  const started = await inReadNew();
  const { url, source, fences } = started;
  const before = fences.written;
  const written = await send(url, write("ann"));
  expect(written.headers).toMatchObject({
    "crossfade-side": "old",
    "crossfade-mirrored": "pending",
  });
  expect(fences.written).toBeGreaterThan(before);
  expect(await side(url, as("bob"))).toBe("new");
  // Not one below the last: the sidecar takes fences of its own, too.
  source.pass(before);
  expect(await side(url, as("ann"))).toBe("old");
  await untilNew(started, as("ann"));
});

test("a read answered by the authority binds its client until a later fence has passed", async () => {
  const started = await inReadNew();
  const { url, source, fences } = started;
  await send(url, write("ann"));
  const ofWrite = fences.written;
  expect(await side(url, as("ann"))).toBe("old");
  await expect.poll(() => fences.written).toBeGreaterThan(ofWrite);
  source.pass(ofWrite);
  expect(await side(url, as("ann"))).toBe("old");
  await untilNew(started, as("ann"));
});

test("a write binds every identity of its request and every one that its answer sets", async () => {
  const old = await startApp("old", (request, response) => {
    request.resume();
    response.setHeader("set-cookie", ["x=1", "sid=fresh; Path=/; HttpOnly"]);
    response.end();
  });
  const started = await inReadNew({ old });
  const { url } = started;
  await send(url, { method: "POST", headers: { authorization: "ann", cookie: "a=b; sid=stale" } });
  for (const headers of [
    { authorization: "ann" },
    { cookie: "sid=stale" },
    { cookie: "sid=fresh" },
    {},
  ] as Record<string, string>[]) {
    expect([headers, await side(url, { headers })]).toEqual([headers, "old"]);
  }
  expect(await side(url, as("bob"))).toBe("new");
  await untilNew(started, { headers: { cookie: "sid=fresh" } });
});

test("an anonymous write (a login) binds what comes from its address with a new identity", async () => {
  const { url } = await inReadNew();
  await send(url, { method: "POST", body: "login" });
  expect(await side(url, as("a token from the body"))).toBe("old");
});

test("a write binds also when it failed or its client left: it may have been applied", async () => {
  const arrived = Promise.withResolvers<void>();
  const old = await startApp("old", (request, response) => {
    if (request.method === "GET") response.end("old");
    else if (request.url === "/500") response.writeHead(500).end();
    else if (request.url === "/reset") request.socket.destroy();
    else arrived.resolve();
  });
  const { url, source, fences, sidecar } = await inReadNew({ old });
  expect((await send(`${url}/500`, write("ann"))).status).toBe(500);
  expect((await send(`${url}/reset`, write("bob"))).status).toBe(502);
  const leaving = new AbortController();
  const left = fetch(`${url}/left`, {
    method: "POST",
    headers: { authorization: "cid" },
    signal: leaving.signal,
  });
  await arrived.promise;
  leaving.abort();
  await expect(left).rejects.toThrow();
  await expect.poll(() => sidecar.stats().in_flight_writes).toBe(0);
  for (const name of ["ann", "bob", "cid"])
    expect([name, await side(url, as(name))]).toEqual([name, "old"]);
  await expect
    .poll(async () => {
      source.pass(fences.written);
      return side(url, as("ann"));
    })
    .toBe("new");
  // Nobody knows whether these two are applied a little later: they stay for a while, whatever passes.
  expect(await side(url, as("bob"))).toBe("old");
  expect(await side(url, as("cid"))).toBe("old");
});

test("fences are shared: many writes at once, few fences, one in flight", async () => {
  const started = await inReadNew();
  const { url, fences } = started;
  const before = fences.writes;
  const gate = Promise.withResolvers<void>();
  fences.gate = gate.promise;
  const first = send(url, write("first"));
  await expect.poll(() => fences.writes).toBe(before + 1);
  const others = Promise.all(Array.from({ length: 20 }, (_, n) => send(url, write(`c${n}`))));
  await Promise.all([first, others]);
  gate.resolve();
  await expect.poll(() => fences.writes).toBe(before + 2);
  expect(await side(url, as("c7"))).toBe("old");
  await untilNew(started, as("c7"));
});

test("a fence that cannot be written delays nobody for long, and its client stays with the authority", async () => {
  const { url, fences } = await inReadNew({ limits: { fenceMs: 5 } });
  fences.fail = true;
  expect((await send(url, write("ann"))).status).toBe(200);
  expect(await side(url, as("ann"))).toBe("old");
  const { written } = fences;
  fences.fail = false;
  await expect.poll(() => fences.written).toBeGreaterThan(written);
});

test("where the authority answers every read, no fence is taken", async () => {
  const { url, fences, source } = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
  });
  await send(url, write("ann"));
  source.set({ phase: "write-new", authority: "new", epoch: 2 });
  await send(url, write("ann"));
  expect(fences.writes).toBe(0);
});

test("on entering a phase with reads from new, all reads stay until a fence taken then has passed", async () => {
  const { url, source, fences, sidecar } = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
    lagMs: 60_000,
  });
  fences.follow = false;
  await send(url, write("ann"));
  expect(fences.writes).toBe(0);
  source.set({ phase: "read-new" });
  expect(await side(url, as("ann"))).toBe("old");
  await expect.poll(() => fences.written).toBeGreaterThan(0n);
  source.pass(fences.written);
  expect(sidecar.stats().reads).toMatchObject({ share: 1, why: null });
  expect(await side(url, as("bob"))).toBe("new");
});

test("a write in flight while the phase changes binds its client when it is answered", async () => {
  const arrived = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  const old = await startApp("old", async (request, response) => {
    if (request.method === "POST") {
      arrived.resolve();
      await answer.promise;
    }
    response.end("old");
  });
  const { url, source, fences } = await startTestSidecar({
    old,
    new: await startApp("new"),
    lagMs: 60_000,
  });
  fences.follow = false;
  const written = send(url, write("ann"));
  await arrived.promise;
  source.set({ phase: "read-new" });
  await expect.poll(() => fences.written).toBeGreaterThan(0n);
  source.pass(fences.written);
  expect(await side(url, as("bob"))).toBe("new");
  answer.resolve();
  await written;
  expect(await side(url, as("ann"))).toBe("old");
});

test("with another sidecar about, or cut off, the authority answers and the answer says so; then a new fence opens again", async () => {
  const { url, source, fences, sidecar } = await inReadNew();
  for (const [link, back, why] of [
    [{ alone: false }, { alone: true }, "other sidecars"],
    [{ connected: false }, { connected: true }, "disconnected"],
  ] as const) {
    source.link(link);
    const answer = await send(url, as("bob"));
    expect(answer.headers).toMatchObject({
      "crossfade-side": "old",
      "crossfade-consistency": "authority-only",
    });
    expect(sidecar.stats().reads.why).toBe(why);
    const before = fences.written;
    source.link(back);
    expect(await side(url, as("eve"))).toBe("old");
    await expect.poll(() => fences.written).toBeGreaterThan(before);
    source.pass(fences.written);
    expect(await side(url, as("fay"))).toBe("new");
  }
});

test("reads leave new when no fence has passed for longer than gates.lag, and come back", async () => {
  const { url, fences, source, sidecar } = await inReadNew({ lagMs: 150 });
  await expect.poll(() => sidecar.stats().reads.why).toBe("lagging");
  expect(await side(url, as("bob"))).toBe("old");
  fences.follow = true;
  source.pass(fences.written);
  await expect.poll(() => side(url, as("new client"))).toBe("new");
});

test("more clients than are remembered: everybody goes to the authority until a fence taken then has passed", async () => {
  const { url, source, fences, sidecar } = await inReadNew({ limits: { maxBound: 20 } });
  for (let n = 0; n < 30; n++) await send(url, write(`c${n}`));
  expect(sidecar.stats().reads.share).toBe(0);
  expect(await side(url, as("somebody else"))).toBe("old");
  await expect
    .poll(() => {
      source.pass(fences.written);
      return sidecar.stats().reads.share;
    })
    .toBe(1);
});

test("an older epoch has passed: after a flip nobody is bound", async () => {
  const { url, source } = await inReadNew();
  await send(url, write("ann"));
  source.set({ phase: "write-new", authority: "new", epoch: 2 });
  expect(await side(url, as("ann"))).toBe("new");
  source.set({ phase: "read-new", authority: "old", epoch: 3 });
  expect(await side(url, as("ann"))).toBe("old");
});

test("strict: the answer waits until the write is in both schemas, or says that it is pending", async () => {
  const proxy = { consistency: "strict" } as const;
  const { url, source, fences } = await inReadNew({ proxy });
  const answer = send(url, write("ann"));
  const before = fences.written;
  await expect.poll(() => fences.written).toBeGreaterThan(before);
  source.pass(fences.written);
  expect((await answer).headers["crossfade-mirrored"]).toBe("yes");
  // It waits for what passes at all, and no longer than gates.lag.
  const late = await inReadNew({ proxy, lagMs: 300 });
  expect((await send(late.url, write("ann"))).headers["crossfade-mirrored"]).toBe("pending");
});

test("crossfade-mirrored: yes once the fence has passed before the answer; absent where nothing is mirrored", async () => {
  const { url, source, fences } = await inReadNew();
  fences.follow = true;
  await send(url, write("warm"));
  source.set({ phase: "off", epoch: 2 });
  expect((await send(url, write("ann"))).headers).not.toHaveProperty("crossfade-mirrored");
});

test.each(["with a length", "in chunks"])(
  "a long answer to a write (%s) arrives whole, behind its fence, and binds at its end too",
  async (how) => {
    const part = Buffer.alloc(1 << 18, "x");
    const rest = Promise.withResolvers<void>();
    const old = await startApp("old", async (request, response) => {
      request.resume();
      if (request.method === "GET") return response.end("old");
      if (how === "with a length") response.setHeader("content-length", part.length * 2);
      response.write(part);
      await rest.promise;
      response.end(part);
    });
    const started = await inReadNew({ old, limits: { fenceMs: 60_000 } });
    const { url, fences, source } = started;
    const gate = Promise.withResolvers<void>();
    fences.gate = gate.promise;
    const before = fences.written;
    let answered = false;
    const answer = new Promise<http.IncomingMessage>((resolve) => {
      http.request(url, { method: "POST", headers: { authorization: "ann" } }, resolve).end();
    });
    void answer.then(() => (answered = true));
    await expect.poll(() => fences.writes).toBeGreaterThan(Number(before));
    expect(answered).toBe(false);
    gate.resolve();
    const response = await answer;
    await expect.poll(() => fences.written).toBeGreaterThan(before);
    source.pass(fences.written);
    expect(await side(url, as("ann"))).toBe("new");
    rest.resolve();
    let bytes = 0;
    for await (const chunk of response) bytes += (chunk as Buffer).length;
    expect(bytes).toBe(part.length * 2);
    expect(await side(url, as("ann"))).toBe("old");
    await untilNew(started, as("ann"));
  },
);
