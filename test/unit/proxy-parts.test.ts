import type { IncomingMessage } from "node:http";
import { expect, test } from "vitest";
import { bucketOf, ClientIdentities } from "../../proxy/client-identity.ts";
import { Fence, FenceLine } from "../../proxy/fences.ts";
import type { FenceView } from "../../proxy/fences.ts";
import { requestHeaders, responseHeaders } from "../../proxy/headers.ts";
import { LatencyHistogram } from "../../proxy/latency.ts";
import type { Token } from "../../proxy/ports.ts";
import { CausalTokens } from "../../proxy/tokens.ts";
import { quietLog } from "../support/sidecar.ts";

function request(headers: Record<string, string>, remoteAddress = "10.0.0.1"): IncomingMessage {
  const rawHeaders = Object.entries(headers).flat();
  return {
    headers,
    rawHeaders,
    socket: { remoteAddress },
    httpVersion: "1.1",
  } as unknown as IncomingMessage;
}

function fence(token?: Token, epoch = token?.epoch ?? 1): Fence {
  const made = new Fence("old", epoch);
  if (token !== undefined) made.settle(token);
  return made;
}

const view = (epoch: number, passed: bigint, passedEpoch = epoch): FenceView => ({
  epoch,
  passed: { epoch: passedEpoch, fence: passed },
});

test.each([
  ["not written", fence(undefined, 2), view(2, 99n), "unpassed"],
  ["not written, of an older epoch", fence(undefined, 1), view(2, 0n), "passed"],
  ["written, not passed", fence({ side: "old", epoch: 2, fence: 7n }), view(2, 6n), "unpassed"],
  ["passed", fence({ side: "old", epoch: 2, fence: 7n }), view(2, 7n), "passed"],
  ["of an older epoch", fence({ side: "old", epoch: 1, fence: 7n }), view(2, 0n), "passed"],
  [
    "of an older epoch than what has passed",
    fence({ side: "old", epoch: 1, fence: 7n }),
    view(1, 0n, 2),
    "passed",
  ],
  [
    "of a newer epoch",
    fence({ side: "new", epoch: 3, fence: 0n }, 2),
    view(2, 9n),
    { newer: "new" },
  ],
  [
    "that stands before all, of an epoch of which nothing has passed",
    fence({ side: "new", epoch: 2, fence: 0n }, 1),
    view(2, 9n, 1),
    "passed",
  ],
  [
    "passed in an epoch not heard of",
    fence({ side: "new", epoch: 3, fence: 5n }, 2),
    view(2, 5n, 3),
    "passed",
  ],
])("a fence %s", (_name, given, seen, standing) => {
  expect(given.standing(seen)).toEqual(standing);
});

test("one fence write in flight; whoever comes meanwhile shares the next", async () => {
  const writes: PromiseWithResolvers<Token>[] = [];
  const writer = {
    write: async () => {
      const write = Promise.withResolvers<Token>();
      writes.push(write);
      return write.promise;
    },
    stop: async () => {},
  };
  const line = new FenceLine({ writer, log: quietLog, isOver: () => false });
  const first = line.next("old", 1, true);
  const second = line.next("old", 1, true);
  expect(second).not.toBe(first);
  expect(line.next("old", 1, false)).toBe(second);
  expect(writes).toHaveLength(1);
  writes[0]?.resolve({ side: "old", epoch: 1, fence: 1n });
  await first.written(1_000);
  await expect.poll(() => writes.length).toBe(2);
  expect(second.token).toBeUndefined();
  writes[1]?.reject(new Error("away"));
  // The next attempt covers what the failed one was for.
  await expect.poll(() => writes.length).toBe(3);
  writes[2]?.resolve({ side: "old", epoch: 1, fence: 2n });
  await second.written(1_000);
  expect(second.token).toEqual({ side: "old", epoch: 1, fence: 2n });
  await line.stop();
});

test("a fence that nobody waits for is put off, and taken along by one that somebody does", async () => {
  let writes = 0;
  const writer = {
    write: async () => ({ side: "old", epoch: 1, fence: BigInt(++writes) }) as Token,
    stop: async () => {},
  };
  const line = new FenceLine({ writer, log: quietLog, isOver: () => false, lazyMs: 60_000 });
  const lazy = line.next("old", 1, false);
  expect(writes).toBe(0);
  expect(line.next("old", 1, true)).toBe(lazy);
  await lazy.written(1_000);
  expect(writes).toBe(1);
  await line.stop();
});

test("tokens: passed ones go, others never alone; new identities inherit", () => {
  let overflows = 0;
  const tokens = new CausalTokens({ limit: 3, onOverflow: () => overflows++ });
  tokens.bind(["a"], fence({ side: "old", epoch: 1, fence: 1n }));
  tokens.bind(["b", "c"], fence({ side: "old", epoch: 1, fence: 2n }));
  tokens.bind(["a"], fence({ side: "old", epoch: 1, fence: 3n }));
  expect(tokens.size).toBe(3);
  tokens.sweep(view(1, 2n));
  expect(tokens.size).toBe(1);
  expect(tokens.standing(["a", "b"], view(1, 2n))).toBe("unpassed");
  expect(tokens.standing(["b"], view(1, 2n))).toBe("passed");
  tokens.inherit(["a"], ["fresh"], view(1, 2n));
  expect(tokens.standing(["fresh"], view(1, 2n))).toBe("unpassed");
  expect(overflows).toBe(0);
  tokens.bind(["x", "y"], fence());
  expect(overflows).toBe(1);
  expect(tokens.size).toBe(4);
});

test("tokens: a write with unknown outcome binds until its time is up", () => {
  const tokens = new CausalTokens({ onOverflow: () => {} });
  tokens.bindUnclear(["a"], 100);
  tokens.bindUnclear(["b"], 200);
  expect(tokens.endUnclear(50)).toEqual([]);
  expect(tokens.standing(["a"], view(9, 9n))).toBe("unpassed");
  expect(tokens.endUnclear(150)).toEqual(["a"]);
  expect(tokens.standing(["a"], view(9, 9n))).toBe("passed");
  expect(tokens.standing(["b"], view(9, 9n))).toBe("unpassed");
});

const identities = new ClientIdentities([
  { by: "header", name: "Authorization" },
  { by: "cookie", name: "sid" },
  { by: "ip" },
]);

test("all identities that a request carries are found", () => {
  const both = identities.of(request({ authorization: "x", cookie: "a=1; sid=one;sid=two" }));
  const header = identities.of(request({ authorization: "x" }));
  const cookie = identities.of(request({ cookie: "sid=two" }));
  expect(both.client).toBe(header.client);
  expect(both.reads).toHaveLength(3);
  expect(both.reads).toContain(cookie.client);
  expect(both.reads).toContain(header.client);
  expect(both.writes).toHaveLength(4);
});

test("an address binds only those who have nothing better", () => {
  const anonymous = identities.of(request({}));
  const ann = identities.of(request({ authorization: "ann" }));
  const bob = identities.of(request({ authorization: "bob" }));
  const elsewhere = identities.of(request({}, "10.0.0.2"));
  const binds = (by: readonly string[], who: { obeys: readonly string[] }) =>
    who.obeys.some((key) => by.includes(key));
  expect(binds(ann.writes, ann)).toBe(true);
  expect(binds(ann.writes, anonymous)).toBe(true);
  expect(binds(ann.writes, bob)).toBe(false);
  expect(binds(anonymous.writes, bob)).toBe(true);
  expect(binds(anonymous.reads, bob)).toBe(false);
  expect(binds(anonymous.reads, anonymous)).toBe(true);
  expect(binds(anonymous.writes, elsewhere)).toBe(false);
});

test("an answer gives the cookies of the plan, unless it takes them away", () => {
  const { client } = identities.of(request({ cookie: "sid=new" }));
  expect(identities.setBy(["Set-Cookie", "sid=new; Path=/", "set-cookie", "other=1"])).toEqual([
    client,
  ]);
  expect(identities.setBy(["set-cookie", "sid=; Max-Age=0"])).toEqual([]);
});

test("buckets are spread evenly, stay, and depend on the salt", () => {
  const buckets = Array.from({ length: 10_000 }, (_, n) => bucketOf("salt", `client ${n}`));
  for (const share of [0.1, 0.5, 0.9]) {
    expect(
      Math.abs(buckets.filter((bucket) => bucket < share).length / 10_000 - share),
    ).toBeLessThan(0.02);
  }
  expect(bucketOf("salt", "a")).toBe(bucketOf("salt", "a"));
  expect(bucketOf("salt", "a")).not.toBe(bucketOf("other", "a"));
});

test("a Connection field cannot take away what frames or addresses a message", () => {
  const headers = requestHeaders(
    request({
      host: "h",
      "content-length": "3",
      "x-request-id": "mine",
      connection: "host, content-length, x-request-id, via",
    }),
    "old",
    "id",
    undefined,
  );
  expect(headers).toEqual(
    expect.arrayContaining([
      "host",
      "h",
      "content-length",
      "3",
      "x-request-id",
      "id",
      "crossfade-side",
      "old",
      "via",
    ]),
  );
  expect(headers).not.toContain("connection");
});

test("answers lose what concerns one connection, and fields that only this sidecar may set", () => {
  const raw = [
    "Connection",
    "close, X-A",
    "X-A",
    "1",
    "Crossfade-Side",
    "lie",
    "Trailer",
    "x",
    "X-B",
    "2",
  ];
  expect(responseHeaders(raw, ["crossfade-side", "old"], false)).toEqual([
    "X-B",
    "2",
    "crossfade-side",
    "old",
  ]);
  expect(responseHeaders(raw, [], true)).toEqual([
    "Crossfade-Side",
    "lie",
    "Trailer",
    "x",
    "X-B",
    "2",
  ]);
});

test("latency percentiles are right within an eighth", () => {
  const histogram = new LatencyHistogram();
  expect(histogram.summary()).toEqual({ count: 0, p50: 0, p90: 0, p99: 0, max: 0 });
  for (let n = 1; n <= 1_000; n++) histogram.record(n / 10);
  const { count, p50, p90, p99, max } = histogram.summary();
  expect([count, max]).toEqual([1_000, 100]);
  for (const [found, exact] of [
    [p50, 50],
    [p90, 90],
    [p99, 99],
  ] as const) {
    expect(found).toBeGreaterThanOrEqual(exact);
    expect(found).toBeLessThan(exact * 1.13);
  }
});
