import { once } from "node:events";
import http2 from "node:http2";
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import net from "node:net";
import type { AddressInfo } from "node:net";
import tls from "node:tls";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { startByteApp } from "../support/byte-app.ts";
import type { ByteAppHandler } from "../support/byte-app.ts";
import { createAuthority, writePem } from "../support/certificates.ts";
import { startApp, startTestSidecar } from "../support/sidecar.ts";
import type { TestSidecarOptions } from "../support/sidecar.ts";

let files: { cert: string; key: string };
let authority: string;
beforeAll(async () => {
  const made = await createAuthority();
  authority = made.cert;
  files = await writePem(await made.issue("shop.test"));
});

async function withSidecar(old: string, options: TestSidecarOptions = {}) {
  const sidecar = await startTestSidecar({
    ...options,
    old,
    proxy: { ...options.proxy, tls: files },
  });
  const client = http2.connect(sidecar.url, { ca: authority });
  client.on("error", () => {});
  onTestFinished(() => client.destroy());
  return { client, ...sidecar };
}

async function start(answer?: ByteAppHandler, options: TestSidecarOptions = {}) {
  const app = await startByteApp(answer === undefined ? {} : { answer });
  return { app, ...(await withSidecar(app.url, options)) };
}

interface Answer {
  readonly fields: readonly string[];
  readonly status: number;
  readonly body: string;
  readonly trailers: readonly string[];
}

async function ask(
  client: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: string,
): Promise<Answer> {
  const stream = client.request(headers, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  return answered(stream);
}

/** Rejects unless the answer ended by itself. */
async function answered(stream: ClientHttp2Stream): Promise<Answer> {
  let fields: string[] = [];
  let trailers: string[] = [];
  let body = "";
  stream.on("response", (_headers, _flags, raw: string[]) => (fields = raw));
  stream.on("trailers", (_headers: unknown, _flags: number, raw: string[]) => (trailers = raw));
  stream.on("data", (part: Buffer) => (body += part.toString("latin1")));
  await once(stream, "end");
  return { fields, status: Number(fields[fields.indexOf(":status") + 1]), body, trailers };
}

test("a request becomes HTTP/1.1: host, cookies in one field, no field of the connection", async () => {
  const { app, client, port } = await start();
  const answer = await ask(client, {
    ":path": "/a%2Fb//c?q=%zz",
    "x-odd": "\xe9",
    "x-two": ["1", "2"],
    cookie: ["a=1", "b=2"],
    te: "trailers",
  });
  expect([answer.status, answer.body]).toEqual([200, "ok"]);
  const [head = ""] = app.bytes().split("\r\n\r\n");
  expect(head).toMatch(/^GET \/a%2Fb\/\/c\?q=%zz HTTP\/1\.1\r\n/);
  const lines = head.split("\r\n");
  expect(lines).toEqual(
    expect.arrayContaining([
      `host: 127.0.0.1:${port}`,
      "cookie: a=1; b=2",
      "x-odd: \xe9",
      "x-forwarded-proto: https",
      "x-forwarded-for: 127.0.0.1",
      "via: 2 crossfade",
    ]),
  );
  expect(lines.filter((line) => /^(:|te:|transfer-encoding|content-length)/i.test(line))).toEqual(
    [],
  );
  expect(lines.filter((line) => /^host:/i.test(line))).toHaveLength(1);
  expect(
    answer.fields.filter((name) => /^(connection|keep-alive|transfer-encoding)$/.test(name)),
  ).toEqual([]);
});

test("content of a known length, of an unknown one, and none", async () => {
  const { app, client } = await start();
  await ask(client, { ":method": "POST", "content-length": "3" }, "abc");
  expect(app.bytes()).toMatch(/\r\ncontent-length: 3\r\n\r\nabc$/);
  const stream = client.request({ ":method": "POST" });
  stream.write("defg");
  await expect.poll(() => app.bytes()).toContain("defg");
  stream.end();
  await answered(stream);
  expect(app.bytes()).toMatch(/\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndefg\r\n0\r\n\r\n$/s);
  await ask(client, { ":method": "POST" });
  expect(app.whole).toEqual(["abc", "defg", ""]);
});

test("answers keep order and repetition; HEAD and 304 have no content; early hints pass", async () => {
  const { client } = await start((request, response) => {
    if (request.method === "HEAD") response.writeHead(200, { "content-length": "1234" }).end();
    else if (request.url === "/304") response.writeHead(304, { etag: '"x"' }).end();
    else {
      response.writeEarlyHints({ link: "</a.css>; rel=preload" });
      response.writeHead(200, [
        "X-B",
        "1",
        "Set-Cookie",
        "a=1",
        "X-A",
        "\xe9",
        "Set-Cookie",
        "b=2",
      ]);
      response.end("whole");
    }
  });
  const stream = client.request({ ":path": "/" });
  const hints: unknown[] = [];
  stream.on("headers", (headers: Record<string, unknown>) => hints.push(headers["link"]));
  const { fields, body } = await answered(stream);
  expect(hints).toEqual(["</a.css>; rel=preload"]);
  expect(fields.slice(2, 10)).toEqual([
    "x-b",
    "1",
    "set-cookie",
    "a=1",
    "x-a",
    "\xe9",
    "set-cookie",
    "b=2",
  ]);
  expect(body).toBe("whole");
  const head = await ask(client, { ":method": "HEAD" });
  expect(head.fields[head.fields.indexOf("content-length") + 1]).toBe("1234");
  const cached = await ask(client, { ":path": "/304" });
  expect([cached.status, cached.fields.includes('"x"'), cached.body]).toEqual([304, true, ""]);
});

test("trailers pass both ways", async () => {
  const { app, client } = await start((_request, response) => {
    response.writeHead(200, { trailer: "x-sum" });
    response.write("hello");
    response.addTrailers({ "x-sum": "42" });
    response.end();
  });
  const stream = client.request(
    { ":method": "POST", trailer: "x-late" },
    { waitForTrailers: true },
  );
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-late": "7", "x-request-id": "forged" }));
  stream.end("abc");
  const answer = await answered(stream);
  expect([answer.body, answer.trailers]).toEqual(["hello", ["x-sum", "42"]]);
  expect(app.bytes()).toMatch(/\r\n\r\n3\r\nabc\r\n0\r\nx-late: 7\r\n\r\n$/);
});

test.each([
  ["for two hosts", { ":authority": "a", host: "b" }],
  ["with a space in its path", { ":path": "/a b" }],
  ["with an unknown method", { ":method": "BREW" }],
])("a request %s is refused", async (_name, headers) => {
  const { app, client } = await start();
  // Some of it nghttp2 refuses by itself: it resets the stream.
  const outcome = await ask(client, headers).then(
    ({ status }) => status,
    (error: Error) => error.message,
  );
  expect([400, "Stream closed with error code NGHTTP2_PROTOCOL_ERROR"]).toContain(outcome);
  expect(app.bytes()).toBe("");
});

test("an app may answer before it has read everything: the answer arrives whole", async () => {
  const app = await startApp(
    "old",
    (_request, response) => void response.writeHead(413).end("large"),
  );
  const { client, sidecar } = await withSidecar(app.url);
  const stream = client.request({ ":method": "POST" });
  stream.write("abc");
  const { status, body } = await answered(stream);
  expect([status, body]).toEqual([413, "large"]);
  await expect.poll(() => sidecar.stats().in_flight).toBe(0);
});

test("many streams of one connection are answered, each its own", async () => {
  const { client } = await start((request, response) => response.end(request.url));
  const paths = Array.from({ length: 100 }, (_, n) => `/${n}`);
  const answers = await Promise.all(paths.map(async (path) => ask(client, { ":path": path })));
  expect(answers.map(({ body }) => body)).toEqual(paths);
});

test("16 MB go up and down; a client that does not read stops the app from sending", async () => {
  const size = 16 << 20;
  let sent = 0;
  const app = await startApp("old", async (request, response) => {
    let got = 0;
    for await (const part of request) got += (part as Buffer).length;
    response.setHeader("x-got", String(got));
    const chunk = Buffer.alloc(1 << 16);
    while (sent < size * 4 && !response.destroyed) {
      sent += chunk.length;
      if (!response.write(chunk)) await new Promise((go) => response.once("drain", go));
    }
    response.end();
  });
  const { client } = await withSidecar(app.url);
  const stream = client.request({ ":method": "POST" });
  let got: unknown;
  stream.on("response", (headers) => (got = headers["x-got"]));
  stream.end(Buffer.alloc(size));
  let received = 0;
  await once(stream, "response");
  let before = -1;
  await expect
    .poll(
      () => {
        const still = sent === before;
        before = sent;
        return still;
      },
      { interval: 200 },
    )
    .toBe(true);
  expect(sent).toBeLessThan(size * 2);
  stream.on("data", (part: Buffer) => (received += part.length));
  await once(stream, "end");
  expect([got, received]).toEqual([String(size), size * 4]);
});

test.each([0, 8])("a reset (%d) in the middle of an upload never looks whole", async (code) => {
  const app = await startByteApp();
  const { port, sidecar } = await withSidecar(app.url);
  const socket = tls.connect({ port, host: "127.0.0.1", ca: authority, ALPNProtocols: ["h2"] });
  socket.on("error", () => {});
  onTestFinished(() => void socket.destroy());
  await once(socket, "secureConnect");
  socket.resume();
  const host = [0x41, 1, 0x61];
  socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  socket.write(frame(4, 0, 0, []));
  // :method POST, :scheme https, :path /, :authority a; the content does not end here.
  socket.write(frame(1, 4, 1, [0x83, 0x87, 0x84, ...host]));
  socket.write(frame(0, 0, 1, [...Buffer.from("abc")]));
  await expect.poll(() => app.bytes()).toContain("\r\n3\r\nabc");
  socket.write(frame(3, 0, 1, [0, 0, 0, code]));
  await expect.poll(() => sidecar.stats().in_flight).toBe(0);
  expect(app.whole).toEqual([]);
  expect(app.bytes()).not.toContain("\r\n0\r\n");
});

function frame(type: number, flags: number, stream: number, payload: number[]): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, Buffer.from(payload)]);
}

test("a client that resets while it waits takes its request from the app", async () => {
  const closed = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  const app = await startApp("old", (request, response) => {
    request.resume();
    response.on("close", () => closed.resolve());
    arrived.resolve();
  });
  const { client, sidecar } = await withSidecar(app.url);
  const stream = client.request({ ":path": "/slow" });
  stream.on("error", () => {});
  await arrived.promise;
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await closed.promise;
  await expect.poll(() => sidecar.stats().in_flight).toBe(0);
  client.destroy();
});

test.each([
  ["with a length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"],
  ["in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"],
])("an answer %s that breaks off resets its stream", async (_name, bytes) => {
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.write(bytes, () => setTimeout(() => socket.end(), 20)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const { client } = await withSidecar(
    `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  );
  for (let round = 0; round < 10; round++) {
    const stream = client.request({ ":path": "/" });
    const failed = once(stream, "error");
    let ended = false;
    stream.on("end", () => (ended = true));
    stream.resume();
    // oxlint-disable-next-line no-await-in-loop -- one after the other: each must be seen to break off
    await Promise.race([failed.catch(() => {}), once(stream, "close").catch(() => {})]);
    expect(ended).toBe(false);
    expect(stream.rstCode).toBe(http2.constants.NGHTTP2_INTERNAL_ERROR);
  }
});

test("events arrive one by one, the head before the first; HTTP/1.1 is there for who asks", async () => {
  let say: (text: string) => void = () => {};
  const app = await startApp("old", (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    say = (text) => response.write(text);
  });
  const { client, port } = await withSidecar(app.url);
  const stream = client.request({ ":path": "/events" });
  await once(stream, "response");
  for (const text of ["data: 1\n\n", "data: 2\n\n"]) {
    say(text);
    // oxlint-disable-next-line no-await-in-loop -- the second is sent once the first is there
    const [part] = (await once(stream, "data")) as [Buffer];
    expect(part.toString()).toBe(text);
  }
  for (const [offered, chosen] of [
    [["http/1.1"], "http/1.1"],
    [["h2", "http/1.1"], "h2"],
  ] as const) {
    const socket = tls.connect({
      port,
      host: "127.0.0.1",
      ca: authority,
      ALPNProtocols: [...offered],
    });
    onTestFinished(() => void socket.destroy());
    // oxlint-disable-next-line no-await-in-loop -- two connections
    await once(socket, "secureConnect");
    expect(socket.alpnProtocol).toBe(chosen);
  }
});

test("draining finishes what runs: the connection ends with its last answer", async () => {
  const release = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  const app = await startApp("old", async (_request, response) => {
    arrived.resolve();
    await release.promise;
    response.end("late");
  });
  const { client, sidecar } = await withSidecar(app.url, { limits: { drainMs: 10_000 } });
  const answer = ask(client, { ":path": "/" });
  await arrived.promise;
  const closed = sidecar.close();
  release.resolve();
  expect((await answer).body).toBe("late");
  await closed;
});
