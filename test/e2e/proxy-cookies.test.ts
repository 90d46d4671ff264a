import { expect, onTestFinished, test } from "vitest";
import { notifyPassed } from "../../store/control/listen.ts";
import { CookieJar } from "../support/cookie-jar.ts";
import { withClient } from "../support/databases.ts";
import { proxyWorld, runRole } from "../support/proxy-world.ts";
import { freePort } from "../../examples/support/free-port.ts";
import type { ProxyWorld } from "../support/proxy-world.ts";
import { startApp, startTestSidecar } from "../support/sidecar.ts";

const WRITE = { method: "POST", body: "x" };

interface Pair extends ProxyWorld {
  readonly urls: readonly [string, string];
  /** The `cookie` field of each request that reached the old app. */
  readonly cookies: (string | undefined)[];
  /** The mirror's part, by hand: passes every fence written so far. */
  readonly pass: () => Promise<void>;
}

/** Two sidecars in read-new on one control store. Fences pass by the test's hand. */
async function twoSidecars(): Promise<Pair> {
  const world = await proxyWorld();
  const cookies: (string | undefined)[] = [];
  const old = await startApp("old", (request, response) => {
    request.resume();
    cookies.push(request.headers.cookie);
    if (request.url === "/login") response.setHeader("set-cookie", "sid=fresh; Path=/");
    response.end("old");
  });
  const plan = {
    ...world.plan,
    old: { ...world.plan.old, app: old.url },
    proxy: { ...world.plan.proxy, tokens: "cookie" as const },
  };
  await world.change({ phase: "read-new", readsNew: 1 });
  const pass = async () => {
    const { rows } = await withClient(plan.old.database, (client) =>
      client.query<{ id: string }>("select max(id) as id from crossfade.log_old where op = 'f'"),
    );
    await notifyPassed(world.store, 1, BigInt(rows[0]?.id ?? 0));
  };
  const first = await runRole(plan);
  const listen = { host: "127.0.0.1", port: await freePort() };
  const second = await runRole({ ...plan, proxy: { ...plan.proxy, listen } });
  return { ...world, plan, cookies, urls: [first.url, second.url], pass };
}

/** Lets the mirror run: from here on every fence passes soon. */
function runMirror({ pass }: Pair): () => Promise<void> {
  const state = { stopped: false };
  const loop = (async () => {
    while (!state.stopped) await pass();
  })();
  const stop = async () => {
    state.stopped = true;
    await loop;
  };
  onTestFinished(stop);
  return stop;
}

/** The flip's part on the old database: fences are written under its epoch. */
async function moveOld({ plan }: Pair, direction: string, epoch: number): Promise<void> {
  const text = "update crossfade.state set direction = $1, epoch = $2 where side = 'old'";
  await withClient(plan.old.database, (client) => client.query(text, [direction, epoch]));
}

/** Until both sidecars let this client read from new. */
async function untilNew(client: CookieJar, urls: readonly string[]): Promise<void> {
  for (const url of [...urls, ...urls])
    await expect.poll(async () => (await client.send(url)).body).toBe("new");
}

test("a client that alternates between two sidecars reads its own writes, and new once they have passed", async () => {
  const pair = await twoSidecars();
  const [a, b] = pair.urls;
  const client = new CookieJar();
  let stop = runMirror(pair);
  await untilNew(client, [a, b]);
  await stop();

  for (const [writer, reader] of [
    [a, b],
    [b, a],
  ] as const) {
    expect((await client.send(writer, WRITE)).body).toBe("old");
    expect((await client.send(reader)).body).toBe("old");
    expect((await client.send(writer)).body).toBe("old");
    stop = runMirror(pair);
    await untilNew(client, [reader, writer]);
    await stop();
  }
  expect(client.tokens).toHaveLength(1);
});

test("a client without a token stays with the authority, whichever sidecar it asks; another's token does not move", async () => {
  const pair = await twoSidecars();
  runMirror(pair);
  await untilNew(new CookieJar(), pair.urls);
  for (const url of [...pair.urls, ...pair.urls]) {
    expect((await new CookieJar().send(url)).body).toBe("old");
  }
});

test("a login at one sidecar binds the new session at the other; tokens do not reach the app, other cookies do", async () => {
  const pair = await twoSidecars();
  const [a, b] = pair.urls;
  const client = new CookieJar();
  client.cookies.set("theme", "dark");
  const stop = runMirror(pair);
  await untilNew(client, [a, b]);
  await stop();
  await client.send(`${a}/login`, WRITE);
  expect(client.cookies.get("sid")).toBe("fresh");
  expect((await client.send(b)).body).toBe("old");
  expect(client.tokens).not.toEqual([]);
  expect(pair.cookies.at(-1)).toBe("theme=dark; sid=fresh");
});

test("two answers that overtake each other leave nobody with the older token", async () => {
  const pair = await twoSidecars();
  const [a, b] = pair.urls;
  const client = new CookieJar();
  const stop = runMirror(pair);
  await untilNew(client, [a, b]);
  await stop();
  await Promise.all([client.send(a, WRITE), client.send(b, WRITE)]);
  expect(client.tokens).toHaveLength(2);
  for (const url of [a, b]) expect((await client.send(url)).body).toBe("old");
  runMirror(pair);
  await untilNew(client, [a, b]);
  expect(client.tokens).toHaveLength(1);
});

test("across a flip and back: the sidecars follow the newer epoch's side, and the way back begins with the authority", async () => {
  const pair = await twoSidecars();
  const [a, b] = pair.urls;
  const client = new CookieJar();
  const stop = runMirror(pair);
  await untilNew(client, [a, b]);
  await stop();
  expect((await client.send(a, WRITE)).body).toBe("old");
  await moveOld(pair, "reverse", 2);
  await pair.change({ phase: "write-new", authority: "new", epoch: 2 });
  await expect.poll(async () => (await client.send(a)).body).toBe("new");
  // Whether or not the other has heard of it.
  expect((await client.send(b)).body).toBe("new");
  await moveOld(pair, "forward", 3);
  await pair.change({ phase: "read-new", authority: "old", epoch: 3 });
  await expect.poll(async () => (await client.send(a)).body).toBe("old");
  for (const url of [b, a, b]) expect((await client.send(url)).body).toBe("old");
});

test("a sidecar that is cut off during a flip follows the token to the new authority; its own answers prove nothing", async () => {
  const apps = { old: await startApp("old"), new: await startApp("new") };
  const proxy = { tokens: "cookie" } as const;
  const state = { phase: "read-new" } as const;
  const cutOff = await startTestSidecar({ ...apps, proxy, state });
  const other = await startTestSidecar({ ...apps, proxy, state });
  for (const { source } of [cutOff, other]) source.link({ alone: false });
  cutOff.source.link({ connected: false });
  await expect.poll(() => other.sidecar.stats().reads.share).toBe(1);
  other.fences.follow = false;
  const client = new CookieJar();
  expect((await client.send(cutOff.url)).body).toBe("old");
  expect((await client.send(cutOff.url, WRITE)).body).toBe("old");
  expect((await client.send(other.url)).body).toBe("old");
  other.fences.follow = true;
  await untilNew(client, [other.url]);
  other.source.set({ phase: "write-new", authority: "new", epoch: 2 });
  expect((await client.send(other.url, WRITE)).body).toBe("new");
  expect((await client.send(cutOff.url)).body).toBe("new");
});

test("sidecars that are not in step stay with the authority", async () => {
  const { url, source } = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
    proxy: { tokens: "cookie" },
    state: { phase: "read-new" },
  });
  const client = new CookieJar();
  await untilNew(client, [url]);
  source.link({ alone: false, inStep: false });
  const answer = await client.send(url);
  expect([answer.body, answer.headers["crossfade-consistency"]]).toEqual(["old", "authority-only"]);
  source.link({ inStep: true });
  await untilNew(client, [url]);
});

test("a client outside of the canary's share is given no token for reading, and one for what it wrote", async () => {
  const { url } = await startTestSidecar({
    old: await startApp("old"),
    new: await startApp("new"),
    proxy: { tokens: "cookie" },
    state: { phase: "canary", readsNew: 1e-9 },
  });
  const client = new CookieJar();
  const given = async (options = {}) =>
    (await client.send(url, options)).headers["set-cookie"]?.length ?? 0;
  expect([await given(), await given(WRITE)]).toEqual([0, 1]);
  // The first read makes an open token of it; further ones leave that.
  expect([await given(), await given(), client.tokens.length]).toEqual([2, 0, 1]);
});

test("a read that a sidecar took while it was cut off says so, also when it is answered after a flip that it has heard of", async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  const old = await startApp("old", async (_request, response) => {
    asked.resolve();
    await answer.promise;
    response.end("old");
  });
  const state = { phase: "read-new" } as const;
  const { url, source } = await startTestSidecar({ old, new: await startApp("new"), state });
  source.link({ connected: false });
  const sent = new CookieJar().send(url);
  await asked.promise;
  source.set({ phase: "write-new", authority: "new", epoch: 2 });
  source.link({ connected: true });
  answer.resolve();
  const { body, headers } = await sent;
  expect([body, headers["crossfade-consistency"]]).toEqual(["old", "authority-only"]);
});

test("a read that the follower answers after its sidecar was cut off is no promise: the follower may be the authority by then", async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  const next = await startApp("new", async (request, response) => {
    if (request.url === "/late") {
      asked.resolve();
      await answer.promise;
    }
    response.end("new");
  });
  const state = { phase: "read-new" } as const;
  const { url, source } = await startTestSidecar({
    old: await startApp("old"),
    new: next,
    proxy: { tokens: "cookie" },
    state,
  });
  const client = new CookieJar();
  await untilNew(client, [url]);
  const sent = client.send(`${url}/late`);
  await asked.promise;
  source.link({ connected: false });
  answer.resolve();
  const { body, headers } = await sent;
  expect([body, headers["crossfade-consistency"]]).toEqual(["new", "none"]);
});
