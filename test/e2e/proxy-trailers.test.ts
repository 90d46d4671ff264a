import { once } from "node:events";
import net from "node:net";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { startByteApp } from "../support/byte-app.ts";
import { startApp, startTestSidecar } from "../support/sidecar.ts";

const lines = (...all: string[]) => all.join("\r\n");
const upload = (...fields: string[]) =>
  lines(
    "POST /up HTTP/1.1",
    "Host: a",
    "Transfer-Encoding: chunked",
    "Connection: close",
    ...fields,
    "",
    "",
  );

function connect(port: number): net.Socket {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  onTestFinished(() => void socket.destroy());
  return socket;
}

async function raw(port: number, bytes: string): Promise<string> {
  const socket = connect(port);
  let text = "";
  socket.on("data", (part: Buffer) => (text += part.toString("latin1")));
  socket.write(bytes, "latin1");
  await once(socket, "close");
  return text;
}

test("announced trailers of a request arrive: case, order, repetition and bytes", async () => {
  const app = await startByteApp();
  const { port } = await startTestSidecar({ old: app.url });
  const content = lines("3", "abc", "0", "X-Sum: 1", "x-NAME: \xe9", "X-Sum: 2", "", "");
  expect(await raw(port, upload("Trailer: X-Sum, x-name") + content)).toMatch(/^HTTP\/1\.1 200 OK/);
  expect(app.bytes()).toMatch(/^POST \/up HTTP\/1\.1\r\n/);
  expect(app.bytes()).toContain("\r\nTrailer: X-Sum, x-name\r\n");
  expect(app.bytes().endsWith(`\r\n\r\n${content}`)).toBe(true);
  expect(app.whole).toEqual(["abc"]);
});

test("what frames, routes or vouches for a request does not come in as a trailer", async () => {
  const app = await startByteApp();
  const { port } = await startTestSidecar({ old: app.url });
  const content = lines(
    "1",
    "a",
    "0",
    "Host: b",
    "X-Forwarded-For: 9.9.9.9",
    "X-Request-Id: forged",
    "Crossfade-Side: new",
    "Authorization: Bearer x",
    "Cookie: sid=1",
    "X-Kept: 1",
    "",
    "",
  );
  await raw(port, upload("Trailer: X-Kept") + content);
  expect(app.bytes().endsWith("\r\n\r\n1\r\na\r\n0\r\nX-Kept: 1\r\n\r\n")).toBe(true);
});

test("trailers that are not announced stay here; the content arrives whole", async () => {
  const app = await startByteApp();
  const { port } = await startTestSidecar({ old: app.url });
  await raw(port, upload() + lines("3", "abc", "0", "X-Late: 1", "", ""));
  expect(app.whole).toEqual(["abc"]);
  expect(app.bytes()).not.toContain("X-Late");
});

test("announced, but not sent: the content ends as usual", async () => {
  const app = await startByteApp();
  const { port } = await startTestSidecar({ old: app.url });
  expect(await raw(port, upload("Trailer: X-Sum") + lines("3", "abc", "0", "", ""))).toContain(
    "200 OK",
  );
  expect(app.bytes().endsWith("\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).toBe(true);
});

test("trailers of an answer pass as they are, on either way", async () => {
  const answer = lines(
    "HTTP/1.1 200 OK",
    "Trailer: x-sum",
    "Transfer-Encoding: chunked",
    "",
    "5",
    "hello",
    "0",
    "x-sum: 42",
    "",
    "",
  );
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    let got = "";
    socket.on("data", (part) => {
      got += part.toString("latin1");
      if (/(^GET.*\r\n\r\n|\r\n0\r\n.*\r\n\r\n)$/s.test(got)) socket.write(answer);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const { port } = await startTestSidecar({
    old: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  });
  const get = lines("GET / HTTP/1.1", "Host: a", "Connection: close", "", "");
  const post = upload("Trailer: X-Sum") + lines("1", "a", "0", "X-Sum: 1", "", "");
  expect(await raw(port, get)).toMatch(/5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n$/);
  expect(await raw(port, post)).toMatch(/5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n$/);
});

test("a large upload with trailers is streamed; an app may answer before its end", async () => {
  const app = await startByteApp();
  const { port } = await startTestSidecar({ old: app.url });
  const chunk = `100000\r\n${"x".repeat(1 << 20)}\r\n`;
  const answer = await raw(
    port,
    upload("Trailer: X-Sum") + chunk.repeat(8) + lines("0", "X-Sum: 1", "", ""),
  );
  expect(answer).toContain("200 OK");
  expect(app.whole.map((content) => content.length)).toEqual([8 << 20]);
  const early = await startApp(
    "old",
    (_request, response) => void response.writeHead(413).end("large"),
  );
  const { port: other } = await startTestSidecar({ old: early });
  const socket = connect(other);
  socket.write(upload("Trailer: X-Sum") + chunk);
  const [first] = (await once(socket, "data")) as [Buffer];
  expect(first.toString()).toMatch(/^HTTP\/1\.1 413 /);
});

test("a client that leaves in the middle leaves the app with a broken request", async () => {
  const app = await startByteApp();
  const { port, sidecar } = await startTestSidecar({ old: app.url });
  const socket = connect(port);
  socket.write(upload("Trailer: X-Sum") + lines("3", "abc", ""));
  await expect.poll(() => app.bytes()).toContain("abc");
  socket.destroy();
  await expect.poll(() => sidecar.stats().in_flight).toBe(0);
  expect(app.bytes()).not.toMatch(/\r\n0\r\n/);
  expect(app.whole).toEqual([]);
});

test("no app: 502; one that hangs: 504; one that breaks off: never whole", async () => {
  const request = upload("Trailer: X-Sum") + lines("3", "abc", "0", "X-Sum: 1", "", "");
  const { port: nowhere } = await startTestSidecar();
  expect(await raw(nowhere, request)).toMatch(/^HTTP\/1\.1 502 /);
  const hanging = await startByteApp({ answer: () => {} });
  const timeouts = { connectMs: 1_000, headMs: 200, fallbackHeadMs: 200 };
  const { port: late } = await startTestSidecar({ old: hanging.url, limits: { timeouts } });
  expect(await raw(late, request)).toMatch(/^HTTP\/1\.1 504 /);
  let breakOff = () => {};
  const broken = await startByteApp({
    answer: (_request, response) => {
      response.write("part");
      breakOff = () => response.destroy();
    },
  });
  const { port: half } = await startTestSidecar({ old: broken.url });
  const socket = connect(half);
  let answer = "";
  socket.on("data", (part: Buffer) => (answer += part.toString("latin1")));
  const closed = once(socket, "close");
  socket.write(request, "latin1");
  await expect.poll(() => answer).toContain("part");
  breakOff();
  await closed;
  expect(answer).not.toContain("\r\n0\r\n");
});
