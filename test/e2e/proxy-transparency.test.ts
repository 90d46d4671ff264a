import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Readable } from "node:stream";
import { expect, onTestFinished, test } from "vitest";
import WebSocket, { WebSocketServer } from "ws";
import { send, startApp, startTestSidecar } from "../support/sidecar.ts";

/** Sends bytes and collects the answer until the connection ends or `until` appears. */
async function raw(port: number, request: string, until?: string): Promise<string> {
  const socket = net.connect(port, "127.0.0.1");
  socket.write(request, "latin1");
  let answer = "";
  for await (const chunk of socket) {
    answer += (chunk as Buffer).toString("latin1");
    if (until !== undefined && answer.includes(until)) break;
  }
  socket.destroy();
  return answer;
}

function head(method: string, target: string, ...fields: string[]): string {
  return [
    `${method} ${target} HTTP/1.1`,
    "Host: shop.example",
    "Connection: close",
    ...fields,
    "",
    "",
  ].join("\r\n");
}

/** An app that answers every connection with these bytes. `then`: what it does afterwards. */
async function startRawApp(
  answer: string,
  then: (socket: net.Socket) => void = (socket) => socket.end(),
): Promise<string> {
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.write(answer, "latin1", () => then(socket)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test.each([
  "/a%2Fb//c/../d;p=1?q=%zz&q=a+b&r=%C3%A9#",
  "//double//slash",
  "/%",
  "/%e9?a[]=1&b={x}|y^`",
  "/../..//etc",
])("the target %s arrives as it was sent", async (target) => {
  const old = await startApp("old");
  const { port } = await startTestSidecar({ old });
  const answer = await raw(port, head("GET", target));
  expect(answer).toMatch(/^HTTP\/1.1 200 OK/);
  expect(old.seen[0]?.url).toBe(target);
});

test("every method that Node parses arrives, with its content", async () => {
  const old = await startApp("old");
  const { url } = await startTestSidecar({ old });
  const methods = http.METHODS.filter((method) => method !== "CONNECT");
  for (const method of methods) {
    const answer = await send(`${url}/x`, { method, body: method === "HEAD" ? undefined : "abc" });
    expect([method, answer.status]).toEqual([method, 200]);
  }
  expect(old.seen.map(({ method }) => method)).toEqual(methods);
  expect(old.seen.filter(({ body }) => body.toString() === "abc")).toHaveLength(methods.length - 1);
});

test("request fields keep case, order and repetition; hop-by-hop fields stay here", async () => {
  const old = await startApp("old");
  const { port } = await startTestSidecar({ old });
  await raw(
    port,
    [
      "GET / HTTP/1.1",
      "Host: shop.example",
      "X-One: 1",
      "x-TWO: a",
      "X-One: 2",
      "Connection: close, X-Secret, Content-Type",
      "Content-Type: text/x",
      "X-Secret: gone",
      "Keep-Alive: timeout=5",
      "TE: trailers",
      "Crossfade-Side: new",
      "X-Forwarded-For: 9.9.9.9",
      "X-Request-Id: abc",
      "",
      "",
    ].join("\r\n"),
  );
  const { rawHeaders, headers } = old.seen[0] ?? { rawHeaders: [], headers: {} };
  const lines = rawHeaders.flatMap((name, index) =>
    index % 2 === 0 ? [`${name}: ${rawHeaders[index + 1]}`] : [],
  );
  expect(lines.filter((line) => /^x-(one|two)/i.test(line))).toEqual([
    "X-One: 1",
    "x-TWO: a",
    "X-One: 2",
  ]);
  expect(headers).toMatchObject({
    host: "shop.example",
    "content-type": "text/x",
    "crossfade-side": "old",
    "x-forwarded-for": "9.9.9.9, 127.0.0.1",
    "x-forwarded-proto": "http",
    "x-forwarded-host": "shop.example",
    via: "1.1 crossfade",
    "x-request-id": "abc",
  });
  expect(headers).not.toHaveProperty("x-secret");
  expect(headers).not.toHaveProperty("keep-alive");
  expect(headers).not.toHaveProperty("te");
});

test("answer fields keep case, order and repetition, and the status its text", async () => {
  const old = await startRawApp(
    "HTTP/1.1 299 Quite Odd\r\nX-B: 1\r\nSet-Cookie: a=1\r\nx-a: \xe9\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=9\r\nContent-Length: 2\r\n\r\nok",
  );
  const { port } = await startTestSidecar({ old });
  const answer = await raw(port, head("GET", "/"));
  const lines = answer.split("\r\n");
  expect(lines[0]).toBe("HTTP/1.1 299 Quite Odd");
  expect(lines.slice(1, 6)).toEqual([
    "X-B: 1",
    "Set-Cookie: a=1",
    "x-a: \xe9",
    "Set-Cookie: b=2",
    "Content-Length: 2",
  ]);
  expect(answer).not.toContain("timeout=9");
  expect(answer).toContain("crossfade-side: old");
  expect(answer.endsWith("\r\n\r\nok")).toBe(true);
});

test("proxy.headers: false adds nothing to answers", async () => {
  const old = await startApp("old");
  const { url } = await startTestSidecar({ old, proxy: { headers: false } });
  const answer = await send(`${url}/`, { method: "POST", body: "x" });
  expect(Object.keys(answer.headers).filter((name) => name.startsWith("crossfade"))).toEqual([]);
});

test("HEAD, 204 and 304 have no content and keep their fields", async () => {
  const old = await startApp("old", (request, response) => {
    if (request.method === "HEAD") response.writeHead(200, { "content-length": 1234 }).end();
    else response.writeHead(request.url === "/204" ? 204 : 304, { etag: '"x"' }).end();
  });
  const { url, port } = await startTestSidecar({ old });
  const answer = await send(`${url}/`, { method: "HEAD" });
  expect(answer.headers["content-length"]).toBe("1234");
  for (const path of ["/204", "/304"]) {
    const text = await raw(port, head("GET", path));
    expect(text).toContain('etag: "x"');
    expect(text.endsWith("\r\n\r\n")).toBe(true);
    expect(text).not.toContain("transfer-encoding");
  }
});

/** CROSSFADE_BODY_MB=2048 takes a minute. */
const BODY_MB = Number(process.env["CROSSFADE_BODY_MB"] ?? 150);

test(`${BODY_MB} MB go up and down in bounded memory, byte for byte`, async () => {
  const chunk = randomBytes(1 << 20);
  const chunks = BODY_MB;
  const expected = createHash("sha256");
  for (let n = 0; n < chunks; n++) expected.update(chunk);
  const sum = expected.digest("hex");
  const old = await startApp("old", (request, response) => {
    const hash = createHash("sha256");
    request.on("data", (part: Buffer) => hash.update(part));
    request.on("end", () => {
      response.setHeader("x-received", hash.digest("hex"));
      Readable.from(repeat(chunk, chunks)).pipe(response);
    });
  });
  const { url } = await startTestSidecar({ old });
  const before = process.memoryUsage().rss;
  let peak = 0;
  const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 10);
  onTestFinished(() => clearInterval(watch));
  const answer = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const request = http.request(`${url}/`, { method: "POST" }, resolve).on("error", reject);
    Readable.from(repeat(chunk, chunks)).pipe(request);
  });
  const hash = createHash("sha256");
  // A slow reader at first: what the app sends meanwhile must wait with the app.
  await sleep(200);
  for await (const part of answer) hash.update(part as Buffer);
  expect(answer.headers["x-received"]).toBe(sum);
  expect(hash.digest("hex")).toBe(sum);
  // Client, sidecar and app share this process; everything went through it twice, three times each.
  expect(peak - before).toBeLessThan(Math.min(BODY_MB, 256) * 2 ** 20);
});

test("a client that does not read stops the app from sending", async () => {
  let sent = 0;
  const old = await startApp("old", (_request, response) => {
    const part = Buffer.alloc(1 << 16);
    const more = () => {
      while (response.write(part)) sent += part.length;
      sent += part.length;
      response.once("drain", more);
    };
    more();
  });
  const { port } = await startTestSidecar({ old });
  const client = net.connect(port, "127.0.0.1");
  onTestFinished(() => void client.destroy());
  client.pause();
  client.write(head("GET", "/"));
  await expect
    .poll(async () => {
      const was = sent;
      await sleep(100);
      return was > 0 && sent === was;
    })
    .toBe(true);
  expect(sent).toBeLessThan(32 * 2 ** 20);
});

test("events of a stream arrive one by one, the head before the first", async () => {
  let send: (text: string) => void = () => {};
  const old = await startApp("old", (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    send = (text) => response.write(text);
  });
  const { url } = await startTestSidecar({ old });
  const answer = await new Promise<http.IncomingMessage>((resolve) =>
    http.get(`${url}/events`, resolve),
  );
  onTestFinished(() => void answer.destroy());
  const parts = answer[Symbol.asyncIterator]();
  for (const text of ["data: 1\n\n", "data: 2\n\n"]) {
    send(text);
    expect(((await parts.next()).value as Buffer).toString()).toBe(text);
  }
});

test("trailers, early hints and 100-continue pass", async () => {
  const old = await startApp("old", (request, response) => {
    response.writeEarlyHints({ link: "</a.css>; rel=preload" });
    request.resume().on("end", () => {
      response.writeHead(200, { trailer: "x-sum", "transfer-encoding": "chunked" });
      response.write("hello");
      response.addTrailers({ "x-sum": "42" });
      response.end();
    });
  });
  const { port } = await startTestSidecar({ old });
  const answer = await raw(
    port,
    `${head("POST", "/", "Content-Length: 3", "Expect: 100-continue")}abc`,
  );
  expect(answer).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 103 Early Hints/);
  expect(answer).toContain("</a.css>; rel=preload");
  expect(answer).toContain("5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n");
});

test.each([
  "103 Early Hints\r\nLink: </a.css>; rel=preload; as=style, </b.js>; rel=preload",
  '103 Early Hints\r\nLink: </a.css>; rel=preload; title="a b"\r\nX-A: caf\xe9',
  "104 unknown\r\nUpload-Resume: 1",
])(
  "what an app says before its answer passes as it is, and never costs the answer: %s",
  async (said) => {
    const hop = "Connection: x-hop\r\nX-Hop: 1\r\nContent-Length: 9\r\n";
    const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const old = await startRawApp(`HTTP/1.1 ${said}\r\n${hop}\r\n${answer}`);
    const { port } = await startTestSidecar({ old });
    const [first, second, content] = (
      await raw(port, head("POST", "/", "Content-Length: 0"))
    ).split("\r\n\r\n");
    expect(first).toBe(`HTTP/1.1 ${said}`);
    expect(second).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    expect(content).toBe("ok");
  },
);

test.each(["caf\xe9", "\xe6\x9c\xaa", "\x01"])(
  "a status text that Node cannot send costs no answer: %j",
  async (text) => {
    const old = await startRawApp(`HTTP/1.1 404 ${text}\r\nContent-Length: 2\r\n\r\nok`);
    const { port } = await startTestSidecar({ old });
    const asked = [head("GET", "/"), head("GET", "/").replace("close", "Upgrade\r\nUpgrade: x")];
    for (const request of asked)
      expect(await raw(port, request)).toMatch(/^HTTP\/1\.1 404 .*\r\n\r\nok$/s);
  },
);

test.each([
  ["with a length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"],
  ["in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"],
])("an answer %s that breaks off does not look whole", async (_name, bytes) => {
  const old = await startRawApp(bytes, (socket) => socket.end());
  const { url, port } = await startTestSidecar({ old });
  await expect(send(`${url}/`)).rejects.toThrow(/aborted|socket hang up/);
  const text = await raw(port, head("GET", "/"));
  expect(text.endsWith("0\r\n\r\n")).toBe(false);
});

test("an answer without length that is reset does not look whole", async () => {
  const app = Promise.withResolvers<net.Socket>();
  const old = await startRawApp("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart", app.resolve);
  const { url } = await startTestSidecar({ old });
  const answer = await new Promise<http.IncomingMessage>((resolve) => http.get(url, resolve));
  const parts = answer[Symbol.asyncIterator]();
  expect(((await parts.next()).value as Buffer).toString()).toBe("part");
  (await app.promise).resetAndDestroy();
  await expect(parts.next()).rejects.toThrow(/aborted|socket hang up/);
});

test("an answer that ends with its connection is passed on whole", async () => {
  const old = await startRawApp("HTTP/1.0 200 OK\r\n\r\nwhole");
  const { url } = await startTestSidecar({ old });
  expect((await send(`${url}/`)).body).toBe("whole");
});

test("a client that leaves takes its request to the app with it", async () => {
  const closed = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  const old = await startApp("old", (request, response) => {
    response.on("close", () => closed.resolve());
    request.resume();
    arrived.resolve();
  });
  const { url } = await startTestSidecar({ old });
  const request = http.get(`${url}/slow`).on("error", () => {});
  await arrived.promise;
  request.destroy();
  await closed.promise;
});

test("a client that leaves in the middle of an upload leaves the app with a broken request", async () => {
  const broken = Promise.withResolvers<boolean>();
  const arrived = Promise.withResolvers<void>();
  const old = await startApp("old", (request) => {
    request.on("data", () => arrived.resolve());
    request.on("error", () => {});
    request.on("close", () => broken.resolve(!request.complete));
  });
  const { url } = await startTestSidecar({ old });
  const request = http
    .request(`${url}/up`, { method: "POST", headers: { "content-length": 10 << 20 } })
    .on("error", () => {});
  request.write(Buffer.alloc(1 << 20));
  await arrived.promise;
  request.destroy();
  expect(await broken.promise).toBe(true);
});

test("an app may answer before it has read everything", async () => {
  const old = await startApp("old", (_request, response) => {
    response.writeHead(413).end("too large");
  });
  const { url } = await startTestSidecar({ old });
  const answer = await send(`${url}/up`, { method: "POST", body: Buffer.alloc(4 << 20) });
  expect([answer.status, answer.body]).toEqual([413, "too large"]);
});

test("requests on one connection, pipelined, are answered in order", async () => {
  const old = await startApp("old", (request, response) => {
    setTimeout(() => response.end(`<${request.url}>`), request.url === "/1" ? 50 : 0);
  });
  const { port } = await startTestSidecar({ old });
  const one = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n";
  const answer = await raw(port, one + one.replace("/1", "/2") + head("GET", "/3"));
  expect(answer.match(/<\/\d>/g)).toEqual(["</1>", "</2>", "</3>"]);
});

test("an app that is not there: 502; one that is too slow: 504; both as JSON", async () => {
  const slow = await startApp("slow", () => {});
  const timeouts = { connectMs: 1_000, headMs: 300, fallbackHeadMs: 300 };
  const { url } = await startTestSidecar({
    new: slow,
    state: { authority: "new", phase: "write-new" },
    limits: { timeouts },
  });
  const late = await send(`${url}/`, { method: "POST", body: "x" });
  expect(late.status).toBe(504);
  expect(JSON.parse(late.body)).toMatchObject({
    error: "gateway_timeout",
    message: expect.stringContaining("new app"),
  });
  const { url: nowhere } = await startTestSidecar({});
  const refused = await send(`${nowhere}/`);
  expect(refused.status).toBe(502);
  expect(refused.headers["crossfade-side"]).toBe("old");
  expect(JSON.parse(refused.body)).toMatchObject({
    error: "bad_gateway",
    message: expect.stringContaining("ECONNREFUSED"),
  });
});

test("a write into a connection that the app closes is not sent again; a read is, and a stream that is asked with GET", async () => {
  const requests: string[] = [];
  let hangUps = 0;
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (data) => {
      requests.push(data.toString().split(" ", 1)[0] ?? "");
      if (hangUps-- > 0) socket.destroy();
      else socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const { url } = await startTestSidecar({
    old: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    proxy: { routes: [{ method: "*", path: "/events", kind: "stream", side: undefined }] },
  });
  hangUps = 1;
  expect((await send(`${url}/`)).status).toBe(200);
  expect(requests).toEqual(["GET", "GET"]);
  hangUps = 1;
  expect((await send(`${url}/`, { method: "POST", body: "x" })).status).toBe(502);
  expect(requests).toEqual(["GET", "GET", "POST"]);
  requests.length = 0;
  hangUps = 1;
  expect((await send(`${url}/events`)).status).toBe(200);
  expect(requests).toEqual(["GET", "GET"]);
  hangUps = 1;
  expect((await send(`${url}/events`, { method: "POST", body: "x" })).status).toBe(502);
  expect(requests).toEqual(["GET", "GET", "POST"]);
});

test("an upgrade passes: WebSocket echo with sub-protocol and close code", async () => {
  const old = await startApp("old");
  const wss = new WebSocketServer({ server: old.server, handleProtocols: () => "chat.v2" });
  wss.on("connection", (socket) => {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
    socket.on("close", (code, reason) => closes.push([code, reason.toString()]));
  });
  const closes: [number, string][] = [];
  const { url } = await startTestSidecar({ old });
  const socket = new WebSocket(url.replace("http", "ws") + "/ws?a=1", ["chat.v1", "chat.v2"], {
    headers: { authorization: "Bearer x" },
  });
  const upgraded = new Promise<http.IncomingMessage>((resolve) => socket.once("upgrade", resolve));
  await new Promise((resolve) => socket.once("open", resolve));
  expect(socket.protocol).toBe("chat.v2");
  expect((await upgraded).headers["crossfade-side"]).toBe("old");
  const big = randomBytes(1 << 20);
  for (const message of [Buffer.from("hi"), big]) {
    const echoed = new Promise<Buffer>((resolve) =>
      socket.once("message", (data) => resolve(data as Buffer)),
    );
    socket.send(message);
    expect(Buffer.compare(await echoed, message)).toBe(0);
  }
  const closed = new Promise<[number, Buffer]>((resolve) =>
    socket.once("close", (...args) => resolve(args)),
  );
  socket.close(4001, "enough");
  expect((await closed)[0]).toBe(4001);
  await expect.poll(() => closes).toEqual([[4001, "enough"]]);
});

test.skipIf(process.platform !== "linux")(
  "an end that is gone without a word is noticed by the kernel, on both sides of a tunnel",
  async () => {
    const old = await startApp("old");
    new WebSocketServer({ server: old.server });
    const { url, port } = await startTestSidecar({ old });
    const socket = new WebSocket(url.replace("http", "ws"));
    onTestFinished(() => socket.terminate());
    await new Promise((resolve) => socket.once("open", resolve));
    const hex = (number: number | string) => Number(number).toString(16).toUpperCase();
    const KEEPALIVE = "02:";
    const timers = async (isOurs: (local: string, remote: string) => boolean) => {
      const rows = (await readFile("/proc/net/tcp", "utf8")).split("\n").slice(1, -1);
      const open = rows
        .map((row) => row.trim().split(/\s+/))
        .filter(([, , , state]) => state === "01");
      const ours = open.filter(([, local = "", remote = ""]) => isOurs(local, remote));
      return ours.map(([, , , , , timer]) => timer?.slice(0, 3));
    };
    await expect
      .poll(() => timers((local) => local.endsWith(`:${hex(port)}`)))
      .toEqual([KEEPALIVE]);
    const appPort = hex(new URL(old.url).port);
    await expect
      .poll(() => timers((_local, remote) => remote.endsWith(`:${appPort}`)))
      .toEqual([KEEPALIVE]);
  },
);

test("an upgrade that the app refuses, and one with no app", async () => {
  const old = await startApp("old", (_request, response) =>
    response.writeHead(401, { "x-why": "no" }).end("denied"),
  );
  const { port } = await startTestSidecar({ old });
  const ask = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
  const refused = await raw(port, ask);
  expect(refused).toMatch(/^HTTP\/1.1 401/);
  expect(refused).toContain("x-why: no");
  expect(refused).toContain("denied");
  const { port: nowhere } = await startTestSidecar({});
  expect(await raw(nowhere, ask)).toMatch(/^HTTP\/1.1 502 .*bad_gateway/s);
});

test("an app that breaks off its refusal of an upgrade breaks that client off, and nobody else", async () => {
  const refusal = "HTTP/1.1 400 No\r\nContent-Length: 20\r\n\r\npart";
  const reset = await startRawApp(refusal, (socket) => socket.resetAndDestroy());
  const hanging = await startRawApp(refusal, () => {});
  const timeouts = { connectMs: 1_000, headMs: 200, fallbackHeadMs: 200 };
  for (const old of [reset, hanging]) {
    const { port } = await startTestSidecar({ old, limits: { timeouts } });
    const upgrade = head("GET", "/").replace("close", "Upgrade\r\nUpgrade: websocket");
    expect(await raw(port, upgrade)).not.toMatch(/[^t]$/);
    expect(await raw(port, head("GET", "/"), "400 No")).toMatch(/^HTTP\/1\.1 400 No/);
  }
});

test("an upgrade behind a request that is not answered yet waits for its turn, and is no upgrade then", async () => {
  const release = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  const old = await startApp("old", async (request, response) => {
    if (request.url === "/slow") arrived.resolve();
    if (request.url === "/slow") await release.promise;
    response.end(`<${request.url} ${request.headers.upgrade}>`);
  });
  const { port, url } = await startTestSidecar({ old });
  const get = (path: string, ...fields: string[]) =>
    [`GET ${path} HTTP/1.1`, "Host: a", ...fields, "", ""].join("\r\n");
  const answers = raw(port, get("/slow") + get("/ws", "Connection: Upgrade", "Upgrade: x"));
  await arrived.promise;
  expect((await send(`${url}/other`)).status).toBe(200);
  release.resolve();
  expect((await answers).match(/<[^>]*>/g)).toEqual(["</slow undefined>", "</ws undefined>"]);
});

test("an upgrade to HTTP/2, or with content, is taken as if it had not asked; the connection goes on", async () => {
  const old = await startApp("old");
  const { port, sidecar } = await startTestSidecar({ old });
  const socket = net.connect(port, "127.0.0.1");
  onTestFinished(() => void socket.destroy());
  let got = "";
  socket.on("data", (part: Buffer) => (got += part.toString()));
  const ask = (method: string, path: string, upgrade: string, rest: string) =>
    socket.write(
      `${method} ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n` +
        `Upgrade: ${upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n${rest}`,
    );
  const kinds = [
    () => ask("GET", "/1", "h2c", "\r\n"),
    () => ask("POST", "/2", "h2c", "Content-Length: 3\r\n\r\nabc"),
    () => ask("POST", "/3", "tcp", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    () => ask("DELETE", "/4", "TLS/1.2, h2c", "\r\n"),
  ];
  for (const [n, kind] of kinds.entries()) {
    kind();
    await expect.poll(() => got.match(/HTTP\/1\.1 200/g)).toHaveLength(n + 1);
  }
  expect(old.seen.map(({ url, body }) => [url, body.toString()])).toEqual([
    ["/1", ""],
    ["/2", "abc"],
    ["/3", "abc"],
    ["/4", ""],
  ]);
  for (const { headers } of old.seen) {
    expect(headers).not.toHaveProperty("upgrade");
    expect(headers).not.toHaveProperty("http2-settings");
  }
  const counted = sidecar.stats().traffic.filter(({ requests }) => requests > 0);
  expect(counted.map(({ kind, requests }) => [kind, requests])).toEqual([
    ["read", 1],
    ["write", 3],
  ]);
});

test("a request that is no HTTP is refused here", async () => {
  const old = await startApp("old");
  const { port } = await startTestSidecar({ old });
  const both = head("POST", "/", "Content-Length: 3", "Transfer-Encoding: chunked");
  expect(await raw(port, `${both}abc`)).toMatch(/^HTTP\/1.1 400/);
  expect(
    await raw(port, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"),
  ).toMatch(/^HTTP\/1.1 400/);
  expect(old.seen).toEqual([]);
});

function* repeat(chunk: Buffer, times: number): Generator<Buffer> {
  for (let n = 0; n < times; n++) yield chunk;
}
