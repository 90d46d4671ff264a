import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { parseJsonPath } from "../../config/json-path.ts";
import { NOWHERE, STATE, send, startApp, startTestSidecar } from "../support/sidecar.ts";
import type { AppHandler, TestSidecar, TestSidecarOptions } from "../support/sidecar.ts";

const ALL = { sample: 1 };

function json(value: unknown): AppHandler {
  return (_request, response) =>
    response.setHeader("content-type", "application/json").end(JSON.stringify(value));
}

async function world(
  old: AppHandler,
  next: AppHandler,
  options: TestSidecarOptions = {},
): Promise<TestSidecar> {
  const [oldApp, newApp] = [await startApp("old", old), await startApp("new", next)];
  return startTestSidecar({ old: oldApp, new: newApp, shadow: ALL, ...options });
}

const report = ({ sidecar }: TestSidecar) => sidecar.stats().shadow;

async function reads(target: TestSidecar, url: string, times = 1): Promise<void> {
  for (let i = 0; i < times; i += 1) expect((await send(target.url + url)).status).toBe(200);
}

test("answers that say the same agree: order of keys, number format and coding do not matter", async () => {
  const target = await world(
    (_request, response) => {
      response.setHeader("content-type", "application/json; charset=utf-8");
      response.end('{"a":1.0,"b":[1,2]}');
    },
    (_request, response) => {
      response.setHeader("content-type", "application/json");
      response.setHeader("content-encoding", "gzip").end(gzipSync('{ "b": [1, 2], "a": 1 }'));
    },
  );
  await reads(target, "/x", 3);
  await expect.poll(() => report(target)).toMatchObject({ samples: 3, mismatches: 0, noise: 0 });
});

test("a mismatch keeps its route, statuses, path and a redacted example", async () => {
  const target = await world(
    json({ user: { id: 7, name: "Anna", email: "anna@example.org" } }),
    json({ user: { id: 7, name: "Ann", email: "other@example.org" } }),
    { shadow: { sample: 1, redact: [parseJsonPath("$..email")!] } },
  );
  await reads(target, "/users/7?token=secret");
  await reads(target, "/users/8");
  await expect.poll(() => report(target)).toMatchObject({ samples: 2, mismatches: 2 });
  const group = (path: string, old: string, next: string) => ({
    route: "GET /users/:id",
    path,
    count: 2,
    example: {
      request: expect.stringMatching(/^GET \/users\/(7\?token|8)$/) as string,
      statuses: { old: 200, new: 200 },
      old,
      new: next,
    },
  });
  expect(report(target).groups).toEqual([
    group("$.user.name", '"Anna"', '"Ann"'),
    group("$.user.email", '"[redacted]"', '"[redacted]"'),
  ]);
});

test("statuses, content that is not JSON, and no answer at all are mismatches too", async () => {
  const target = await world(
    (_request, response) => response.end("text of old"),
    (request, response) => {
      if (request.url === "/gone") response.writeHead(404).end();
      else if (request.url === "/broken") response.destroy();
      else response.end("text of new");
    },
  );
  for (const url of ["/gone", "/broken", "/text"]) await reads(target, url);
  await expect.poll(() => report(target).mismatches).toBe(3);
  const found = report(target).groups.map(
    ({ route, path, example }) => `${route} ${path} ${example.statuses.new}`,
  );
  expect(new Set(found)).toEqual(
    new Set(["GET /broken (no answer) null", "GET /gone (status) 404", "GET /text (body) 200"]),
  );
});

test("what old does not say twice is noise: cancelled, then learned, and the rest still counts", async () => {
  let n = 0;
  const answer = (name: string): AppHandler => {
    return (request, response) =>
      json({ at: (n += 1), name: request.url === "/b" ? name : "x" })(request, response);
  };
  const target = await world(answer("old"), answer("new"));
  for (let i = 1; i <= 4; i += 1) {
    await reads(target, "/a");
    await expect.poll(() => report(target)).toMatchObject({ samples: i, noise: i });
  }
  expect(report(target).noise_paths).toEqual([{ route: "GET /a", path: "$.at" }]);
  await reads(target, "/b");
  await expect.poll(() => report(target).mismatches).toBe(1);
  expect(report(target).groups.map(({ path }) => path)).toEqual(["$.name"]);
});

test("a write under way is no mismatch: it is looked at again once a fence has passed", async () => {
  let oldValue = 1;
  let newValue = 0;
  const target = await world(
    (request, response) => json({ value: oldValue })(request, response),
    (request, response) => json({ value: newValue })(request, response),
  );
  target.fences.follow = false;
  await reads(target, "/x");
  await expect.poll(() => target.fences.written).toBe(1n);
  expect(report(target)).toMatchObject({ samples: 0, mismatches: 0 });
  // Old goes on; the mirror arrives at what old had when the fence was taken, and further.
  oldValue = 2;
  newValue = 2;
  target.fences.follow = true;
  target.source.pass(1n);
  await expect
    .poll(() => report(target))
    .toMatchObject({ samples: 1, mismatches: 0, in_flight: 1, noise: 0 });
});

test("without a fence that passes there is no verdict", async () => {
  const target = await world(json({ value: 1 }), json({ value: 2 }), {
    limits: { shadow: { maxSamples: 8, answerMs: 1_000, fenceMs: 50 } },
  });
  target.fences.follow = false;
  await reads(target, "/x");
  await expect
    .poll(() => report(target))
    .toMatchObject({ samples: 0, mismatches: 0, unjudged: 1, skipped: 0 });
});

test("only reads that old answers in shadow and canary are asked of new", async () => {
  const asked: string[] = [];
  const record: AppHandler = (request, response) => {
    asked.push(`${request.method} ${request.url} ${String(request.headers["crossfade-side"])}`);
    json({ ok: true })(request, response);
  };
  const target = await world(json({ ok: true }), record, {
    state: { phase: "verify" },
    proxy: {
      routes: [
        { method: "GET", path: "/logout", kind: "write", side: undefined },
        { method: "GET", path: "/pinned", kind: "read", side: "old" },
        { method: "POST", path: "/search", kind: "read", side: undefined },
      ],
    },
  });
  await reads(target, "/verify");
  target.source.set({ phase: "shadow" });
  await reads(target, "/logout");
  await reads(target, "/pinned");
  for (const method of ["POST", "DELETE"]) await send(`${target.url}/items`, { method, body: "x" });
  await reads(target, "/read");
  await send(`${target.url}/search`, { method: "POST", body: '{"q":1}' });
  await expect.poll(() => report(target).samples).toBe(2);
  target.source.set({ phase: "write-new", authority: "new", epoch: 2 });
  await reads(target, "/later");
  expect(asked.toSorted()).toEqual(["GET /later new", "GET /read new", "POST /search new"]);
});

test("a new side that hangs costs the client nothing, and holds no more than the bound", async () => {
  const target = await world(json({ ok: true }), () => {}, {
    limits: { shadow: { maxSamples: 3, answerMs: 60_000, fenceMs: 50 } },
  });
  await reads(target, "/x", 10);
  await expect.poll(() => report(target)).toMatchObject({ samples: 0, dropped: 7 });
});

test("an answer of new that never ends gives its place back, without a verdict", async () => {
  const endless: AppHandler = (_request, response) => {
    response.setHeader("content-type", "application/json");
    const dripping = setInterval(() => response.write(" "), 10);
    response.on("close", () => clearInterval(dripping));
  };
  const target = await world(json({ ok: true }), endless, {
    limits: { shadow: { maxSamples: 2, answerMs: 100, fenceMs: 50 } },
  });
  for (const skipped of [2, 4]) {
    await reads(target, "/x", 2);
    await expect.poll(() => report(target).skipped).toBe(skipped);
  }
  expect(report(target)).toMatchObject({ samples: 0, dropped: 0 });
});

test("an answer that waits until its token is stored is compared as it was; asked again because it broke off it is one sample", async () => {
  const breaks = new Set<string>();
  const text: AppHandler = (request, response) => {
    const url = request.url ?? "";
    if (breaks.has(url)) return response.end(url);
    breaks.add(url);
    response.setHeader("content-length", 9);
    return response.write("br", () => response.destroy());
  };
  const target = await world(text, (request, response) => response.end(request.url), {
    redis: NOWHERE.replace("http", "redis"),
    state: { phase: "canary", readsNew: 1 },
    limits: { shadow: { maxSamples: 1, answerMs: 1_000, fenceMs: 50 } },
  });
  target.source.link({ alone: false, heard: false });
  for (const samples of [1, 2, 3]) {
    await reads(target, `/${samples}`);
    await expect.poll(() => report(target).samples).toBe(samples);
  }
  // Had they been compared as empty, they would have been looked at again.
  expect(report(target)).toMatchObject({ dropped: 0, mismatches: 0, in_flight: 0, noise: 0 });
});

test("answers above the limit are compared by hash; JSON that differs there is not judged", async () => {
  const big = (size: number) => "x".repeat(size);
  const target = await world(
    (request, response) => {
      if (request.url === "/json") json(big(400_000))(request, response);
      else response.end(big(400_000));
    },
    (request, response) => {
      if (request.url === "/json") json(big(400_001))(request, response);
      else response.end(big(request.url === "/same" ? 400_000 : 400_001));
    },
  );
  for (const url of ["/same", "/other", "/json"]) await reads(target, url);
  await expect.poll(() => report(target)).toMatchObject({ samples: 2, mismatches: 1, skipped: 1 });
  expect(report(target).groups.map(({ route, path }) => [route, path])).toEqual([
    ["GET /other", "(body)"],
  ]);
});

test("every stay in the phase counts from nothing; canary goes on counting", async () => {
  const target = await world(json({ value: 1 }), json({ value: 2 }));
  await reads(target, "/x");
  await expect.poll(() => report(target).mismatches).toBe(1);
  target.source.set({ phase: "canary" });
  expect(report(target).samples).toBe(1);
  target.source.set({ phase: "verify" });
  expect(report(target)).toMatchObject({ samples: 0, mismatches: 0, groups: [] });
  expect(target.source.reported?.shadow.samples).toBe(0);
  target.source.set(STATE);
  await reads(target, "/x");
  await expect.poll(() => report(target).mismatches).toBe(1);
});
