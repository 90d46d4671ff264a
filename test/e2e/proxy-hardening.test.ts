import { once } from "node:events";
import net from "node:net";
import { expect, onTestFinished, test } from "vitest";
import type { ClientLimits } from "../../config/plan-types.ts";
import { startApp, startTestSidecar } from "../support/sidecar.ts";

const LIMITS: ClientLimits = {
  headerBytes: 65_536,
  headerTimeoutMs: 60_000,
  bodyTimeoutMs: 60_000,
  idleTimeoutMs: 60_000,
  connections: 1_000,
};

function connect(port: number): net.Socket {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  onTestFinished(() => void socket.destroy());
  return socket;
}

/** Sends bytes; resolves with everything that came back once the sidecar has closed the connection. */
async function exchange(port: number, bytes: string): Promise<string> {
  const socket = connect(port);
  const answer = collect(socket);
  socket.write(bytes, "latin1");
  return answer;
}

async function collect(socket: net.Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  await once(socket, "close");
  return text;
}

const lines = (...all: string[]) => all.join("\r\n");
const post = (...rest: string[]) => lines("POST /outer HTTP/1.1", "Host: a", ...rest);
const CHUNKED = "Transfer-Encoding: chunked";
const SMUGGLED = lines("GET /smuggled HTTP/1.1", "Host: a", "", "");

test.each([
  ["length and chunks", post("Content-Length: 5", CHUNKED, "", "0", "", "")],
  ["chunks and length", post(CHUNKED, "Content-Length: 5", "", "0", "", "")],
  ["two lengths", post("Content-Length: 3", "Content-Length: 4", "", "abc")],
  ["the same length twice", post("Content-Length: 3", "Content-Length: 3", "", "abc")],
  ["a list of lengths", post("Content-Length: 3, 3", "", "abc")],
  ["a signed length", post("Content-Length: +3", "", "abc")],
  ["a negative length", post("Content-Length: -3", "", "abc")],
  ["a hexadecimal length", post("Content-Length: 0x3", "", "abc")],
  ["a length beyond all", post("Content-Length: 99999999999999999999999", "", "abc")],
  ["a coding that is not chunked", post("Transfer-Encoding: xchunked", "", "0", "", "")],
  ["chunked, but not last", post("Transfer-Encoding: chunked, identity", "", "0", "", "")],
  ["a space before the colon", post("Content-Length : 3", "", "abc")],
  ["a space before the colon of the coding", post("Transfer-Encoding : chunked", "", "0", "", "")],
  ["a folded field", post("X-A: 1", " folded", "Content-Length: 0", "", "")],
  ["a first field that begins with a space", lines("GET / HTTP/1.1", " Host: a", "", "")],
  ["a bare CR in a value", post("X-A: 1\rContent-Length: 9", "", "")],
  ["a bare CR at the end of a line", post("X-A: 1\rX-B: 2", "", "")],
  ["NUL in a value", post("X-A: 1\0", "Content-Length: 0", "", "")],
  ["a field without a name", post(": 1", "Content-Length: 0", "", "")],
  ["no host", lines("GET / HTTP/1.1", "X-A: 1", "", "")],
  ["a size that is no number", post(CHUNKED, "", "zz", "abc", "0", "", "")],
  ["a negative size", post(CHUNKED, "", "-1", "abc", "0", "", "")],
  ["a size with a prefix", post(CHUNKED, "", "0x3", "abc", "0", "", "")],
  ["a size beyond all", post(CHUNKED, "", "FFFFFFFFFFFFFFFFF", "abc", "0", "", "")],
  ["a chunk longer than its size", post(CHUNKED, "", "2", "abc", "0", "", "")],
  ["a chunk extension with a bare CR", post(CHUNKED, "", "3;a\rb", "abc", "0", "", "")],
  ["a size ended by a bare LF", post(CHUNKED, "", "3\nabc", "0", "", "")],
])("refused, and nothing behind it is let through: %s", async (_name, bytes) => {
  const old = await startApp("old");
  const { port } = await startTestSidecar({ old });
  const answer = await exchange(port, bytes + SMUGGLED);
  expect(answer).toMatch(/^HTTP\/1\.1 (400|413) /);
  expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1);
  // Only requests that arrived whole are seen.
  expect(old.seen).toEqual([]);
});

test("a request for two hosts is refused", async () => {
  const old = await startApp("old");
  const { port } = await startTestSidecar({ old });
  const hosts = lines("GET / HTTP/1.1", "Host: a", "Host: b", "Connection: close", "", "");
  expect(await exchange(port, hosts)).toMatch(/^HTTP\/1\.1 400 /);
  expect(old.seen).toEqual([]);
});

test("chunk extensions stay here, trailers never become fields, and the content arrives whole", async () => {
  const old = await startApp("old");
  const { port } = await startTestSidecar({ old });
  const answer = await exchange(
    port,
    post(
      CHUNKED,
      "Connection: close",
      "Trailer: X-Late",
      "",
      "3;ext=1",
      "abc",
      "2",
      "de",
      "0",
      "X-Late: 1",
      "X-Request-Id: forged",
      "",
      "",
    ),
  );
  expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  expect(old.seen.map(({ body }) => body.toString())).toEqual(["abcde"]);
  expect(old.seen[0]?.headers["x-request-id"]).not.toBe("forged");
  expect(old.seen[0]?.headers).not.toHaveProperty("x-late");
});

test("pipelined requests are done one by one: none begins before the answer to the one before", async () => {
  const started: string[] = [];
  const releases = new Map(["/1", "/2"].map((url) => [url, Promise.withResolvers<void>()]));
  const old = await startApp("old", async (request, response) => {
    started.push(request.url ?? "");
    await releases.get(request.url ?? "")?.promise;
    for await (const _ of request);
    response.end(`<${request.url}>`);
  });
  const { port, sidecar } = await startTestSidecar({ old });
  const socket = connect(port);
  const answer = collect(socket);
  socket.write(
    lines("DELETE /1 HTTP/1.1", "Host: a", "", "") +
      lines("POST /2 HTTP/1.1", "Host: a", "Content-Length: 3", "", "abc") +
      lines("GET /3 HTTP/1.1", "Host: a", "Connection: close", "", ""),
  );
  for (const [n, release] of [...releases.values()].entries()) {
    await expect.poll(() => started).toHaveLength(n + 1);
    // Another client's request has been all the way meanwhile.
    await exchange(port, lines(`GET /other${n} HTTP/1.1`, "Host: a", "Connection: close", "", ""));
    expect(sidecar.stats().in_flight).toBe(1);
    expect(started.splice(n + 1)).toEqual([`/other${n}`]);
    release.resolve();
  }
  expect((await answer).match(/<[^>]*>/g)).toEqual(["</1>", "</2>", "</3>"]);
  expect(started).toEqual(["/1", "/2", "/3"]);
});

test("a client that sends one request after the other and reads nothing is cut off", async () => {
  const old = await startApp("old", () => {});
  const { port, sidecar } = await startTestSidecar({ old });
  const get = lines("GET / HTTP/1.1", "Host: a", "", "");
  const patient = connect(port);
  patient.write(get.repeat(900));
  expect(await exchange(port, get.repeat(1_100))).toBe("");
  await expect.poll(() => sidecar.stats().in_flight).toBe(1);
  expect(patient.destroyed).toBe(false);
});

async function limited(limits: Partial<ClientLimits>) {
  const old = await startApp("old");
  const sidecar = await startTestSidecar({ old, proxy: { limits: { ...LIMITS, ...limits } } });
  return { old, ...sidecar };
}

test("a head that is too large: 431", async () => {
  const { port, old } = await limited({ headerBytes: 2_048 });
  const answer = await exchange(port, post(`X-A: ${"a".repeat(4_096)}`, "", ""));
  expect(answer).toMatch(/^HTTP\/1\.1 431 /);
  expect(old.seen).toEqual([]);
});

test("a head that does not end: 408", async () => {
  const { port } = await limited({ headerTimeoutMs: 100 });
  expect(await exchange(port, "GET / HTTP/1.1\r\nHost: a\r\n")).toMatch(/^HTTP\/1\.1 408 /);
});

test.each([
  ["small content", "Content-Length: 10"],
  ["large content", "Content-Length: 1000000"],
  ["content in chunks", CHUNKED],
])("%s that does not go on is cut off, and the app never has it whole", async (_name, field) => {
  const { port, old, sidecar } = await limited({ bodyTimeoutMs: 100 });
  await exchange(port, post(field, "", "3", "abc"));
  await expect.poll(() => sidecar.stats().in_flight_writes).toBe(0);
  expect(old.seen).toEqual([]);
});

test("a connection without requests is closed", async () => {
  const { port } = await limited({ idleTimeoutMs: 100 });
  const answer = await exchange(port, lines("GET / HTTP/1.1", "Host: a", "", ""));
  expect(answer).toMatch(/^HTTP\/1\.1 200 /);
});

test("more connections than allowed are turned away; those that are there go on", async () => {
  const { port } = await limited({ connections: 1 });
  const first = connect(port);
  await once(first, "connect");
  first.write(lines("GET /1 HTTP/1.1", "Host: a", "", ""));
  await once(first, "data");
  expect(await exchange(port, SMUGGLED)).toBe("");
  const answer = collect(first);
  first.write(lines("GET /2 HTTP/1.1", "Host: a", "Connection: close", "", ""));
  expect(await answer).toMatch(/^HTTP\/1\.1 200 /);
});
