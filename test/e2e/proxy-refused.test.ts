import { expect, test } from "vitest";
import { send, startApp, startTestSidecar } from "../support/sidecar.ts";
import type { TestApp, TestSidecar, TestSidecarOptions } from "../support/sidecar.ts";

/* Writes that an app has not done, because its side is not the authority any more, and says so. */

interface Refusing {
  readonly old: TestApp;
  readonly next: TestApp;
  /** How often the old app was asked. */
  asked(): number;
  closed: boolean;
}

/** The old app as behind its guard: while that is closed it refuses, and nothing of the write is applied. */
async function startRefusing(answer: Readonly<Record<string, string>>): Promise<Refusing> {
  const next = await startApp("new");
  let asked = 0;
  const world = {
    closed: true,
    asked: () => asked,
    next,
    old: await startApp("old", (request, response) => {
      request.resume();
      asked += 1;
      if (world.closed) response.writeHead(503, answer).end("the guard refused it");
      else response.end("old");
    }),
  };
  return world;
}

async function start(
  world: Refusing,
  options: TestSidecarOptions = {},
): Promise<TestSidecar & { write: (path?: string) => ReturnType<typeof send> }> {
  const started = await startTestSidecar({
    old: world.old,
    new: world.next,
    state: { phase: "read-new" },
    ...options,
  });
  const write = (path = "/") =>
    send(started.url + path, { method: "POST", body: `content of ${path}` });
  return { ...started, write };
}

const NOT_APPLIED = { "crossfade-applied": "no" };

test("is sent to the new authority when the state says there is one; the client sees nothing of it", async () => {
  const world = await startRefusing(NOT_APPLIED);
  const { source, write, sidecar } = await start(world);
  source.onLook = () => source.set({ phase: "write-new", authority: "new", epoch: 2 });
  const { status, body, headers } = await write("/1");
  expect([status, body, headers["crossfade-side"]]).toEqual([200, "new", "new"]);
  expect(world.asked()).toBe(1);
  expect(world.next.seen.map((seen) => seen.body.toString())).toEqual(["content of /1"]);
  await expect.poll(() => sidecar.stats().in_flight_writes).toBe(0);
});

test("long answers and those without a length are dropped too", async () => {
  const next = await startApp("new");
  const old = await startApp("old", (request, response) => {
    request.resume();
    response.writeHead(503, NOT_APPLIED);
    if (request.url === "/long") response.end(Buffer.alloc(1_000_000, "x"));
    else response.write("and so on");
  });
  const { url, source } = await startTestSidecar({ old, new: next });
  source.onLook = () => source.set({ phase: "write-new", authority: "new", epoch: 2 });
  for (const path of ["/long", "/endless"]) {
    source.set({ phase: "read-new", authority: "old", epoch: 1 });
    expect((await send(url + path, { method: "POST", body: "x" })).body).toBe("new");
  }
  expect(next.seen.map((seen) => seen.url)).toEqual(["/long", "/endless"]);
});

test("waits while a flip is under way, is no write in flight for it, and goes where it leads", async () => {
  const world = await startRefusing(NOT_APPLIED);
  const { source, write, sidecar } = await start(world);
  source.onLook = () => source.hold(4, 60_000);
  const written = write();
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  expect(source.acknowledged.at(-1)).toEqual({ epoch: 1, hold: 4, inFlightWrites: 0 });
  source.set({ phase: "write-new", authority: "new", epoch: 2 });
  source.set({ hold: null });
  expect((await written).body).toBe("new");
  await expect.poll(() => source.reported?.held).toMatchObject({ attempt: 4, failed: 0 });
});

test("goes back to the old side when the flip was undone", async () => {
  const world = await startRefusing(NOT_APPLIED);
  const { source, write, sidecar } = await start(world);
  source.onLook = () => source.hold(4, 60_000);
  const written = write();
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  world.closed = false;
  source.set({ hold: null });
  expect((await written).body).toBe("old");
  expect(world.asked()).toBe(2);
});

test("gets the app's answer where the state is as it was, cannot be had, or nothing else is ever said", async () => {
  const world = await startRefusing(NOT_APPLIED);
  const { source, write } = await start(world);
  expect((await write()).body).toBe("the guard refused it");
  expect([world.asked(), source.looks]).toEqual([1, 1]);
  source.onLook = () => new Promise(() => {});
  expect(await write()).toMatchObject({ status: 503, body: "the guard refused it" });
  expect(world.asked()).toBe(2);
  // Every look finds a newer epoch, and the authority where it was.
  let epoch = 1;
  source.onLook = () => source.set({ epoch: ++epoch });
  expect(await write()).toMatchObject({ status: 503, body: "the guard refused it" });
  expect(world.asked()).toBe(6);
  expect(world.next.seen).toEqual([]);
});

test("is never sent again unless the app says that nothing was applied; the state is asked for all the same", async () => {
  for (const answer of [{}, { "crossfade-applied": "yes" }]) {
    const world = await startRefusing(answer);
    const { source, write } = await start(world);
    source.onLook = () => source.set({ phase: "write-new", authority: "new", epoch: 2 });
    const answers = await Promise.all([write(), write()]);
    for (const { status, body } of answers)
      expect([status, body]).toEqual([503, "the guard refused it"]);
    expect([world.asked(), world.next.seen.length]).toEqual([2, 0]);
    // Not for each of them: an app that fails a thousand times a second must not cost the store as much.
    expect(source.looks).toBe(1);
    expect((await write()).body).toBe("new");
  }
});

test("is not sent again when its content is gone, or its route names a side", async () => {
  const world = await startRefusing(NOT_APPLIED);
  const { url, source } = await start(world, {
    proxy: { routes: [{ method: "POST", path: "/pinned", kind: "write", side: "old" }] },
  });
  source.onLook = () => source.set({ phase: "write-new", authority: "new", epoch: 2 });
  const streamed = await send(url, { method: "POST", body: Buffer.alloc(8 * 1024 * 1024) });
  expect([streamed.status, streamed.body]).toEqual([503, "the guard refused it"]);
  source.set({ phase: "read-new", authority: "old", epoch: 1 });
  const pinned = await send(`${url}/pinned`, { method: "POST", body: "x" });
  expect([pinned.status, pinned.body]).toEqual([503, "the guard refused it"]);
  expect(world.next.seen).toEqual([]);
});
