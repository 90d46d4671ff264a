import { once } from "node:events";
import net from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { startByteApp } from "../support/byte-app.ts";
import { startTestSidecar } from "../support/sidecar.ts";

const lines = (...all: string[]) => all.join("\r\n");
const head = (first: string, ...fields: string[]) => lines(first, ...fields, "", "");
const get = (...fields: string[]) => head("GET /outer HTTP/1.1", "Host: a", ...fields);
const post = (...fields: string[]) => head("POST /outer HTTP/1.1", "Host: a", ...fields);
const CHUNKED = "Transfer-Encoding: chunked";
const chunked = (...content: string[]) => post(CHUNKED) + lines(...content);
/** Follows every request: what a wrong end of the first would make a request of its own. */
const SECOND = head("GET /second HTTP/1.1", "Host: a", "Connection: close");

async function run(bytes: string, second = SECOND) {
  const app = await startByteApp();
  const { port } = await startTestSidecar({ old: app.url });
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  onTestFinished(() => void socket.destroy());
  let answer = "";
  socket.on("data", (part: Buffer) => (answer += part.toString("latin1")));
  socket.write(bytes + second, "latin1");
  await once(socket, "close");
  const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
  return { app, answer, statuses };
}

/** What the sidecar adds or sets anew, and the second request, taken away. */
function without(bytes: string): string {
  const own =
    /^(connection: keep-alive|x-forwarded-(for|proto|host): .*|via: .*|x-request-id: .*|crossfade-side: .*)\r\n/gim;
  return bytes.replace(/GET \/second HTTP\/1\.1\r\n.*?\r\n\r\n/s, "").replaceAll(own, "");
}

test.each<[string, string]>([
  ["LF alone between fields", "GET / HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n"],
  ["LF alone after the first line", "GET / HTTP/1.1\nHost: a\r\n\r\n"],
  ["LF alone at the end of the head", "GET / HTTP/1.1\r\nHost: a\r\n\nX: 1\r\n\r\n"],
  ["CR alone after the first line", "GET / HTTP/1.1\rHost: a\r\n\r\n"],
  ["LF in a value", post("X-A: 1\nTransfer-Encoding: chunked")],
  ["NUL in a name", post("X\0A: 1")],
  ["NUL in the target", head("GET /\0 HTTP/1.1", "Host: a")],
  ["DEL in a name", post("X\x7fA: 1")],
  ["a control character in a value", post("X-A: \x01")],
  ["a byte beyond ASCII in a name", post("X-\xe9: 1")],
  ["a space in a name", post("X A: 1")],
  ["a tab before the colon", post("X-A\t: 1")],
  ["brackets in a name", post("X[A]: 1")],
  ["a field without a colon", post("X-A")],
  ["a field folded with a tab", post("X-A: 1", "\tfolded")],
  ["a folded length", post("Content-Length:", " 3")],
  ["a space in the target", head("GET /a b HTTP/1.1", "Host: a")],
  ["no target", head("GET HTTP/1.1", "Host: a")],
  ["no version, and fields", head("GET /", "Host: a")],
  ["a version of two digits", head("GET / HTTP/1.10", "Host: a")],
  ["an unknown version", head("GET / HTTP/3.1", "Host: a")],
  ["a version in lower case", head("GET / http/1.1", "Host: a")],
  ["another protocol", head("GET / RTSP/1.0", "Host: a")],
  ["an unknown method", head("BREW / HTTP/1.1", "Host: a")],
  ["a method in lower case", head("get / HTTP/1.1", "Host: a")],
  ["a target that is no path", head("GET outer HTTP/1.1", "Host: a")],
  ["an empty length", post("Content-Length: ")],
  ["a length with a space in it", post("Content-Length: 1 0")],
  ["a length with an underscore", post("Content-Length: 1_0")],
  ["a length with a fraction", post("Content-Length: 3.0")],
  ["a length with an exponent", post("Content-Length: 1e1")],
  ["a length in octal style letters", post("Content-Length: 0o3")],
  ["a length with a sign and a space", post("Content-Length: - 3")],
  ["a length of digits of another script", post("Content-Length: \xb2")],
  ["a length with a comma at its end", post("Content-Length: 3,")],
  ["a length just beyond 64 bits", post("Content-Length: 18446744073709551616")],
  ["two lengths, the second empty", post("Content-Length: 3", "Content-Length: ")],
  ["two codings fields", post(CHUNKED, "Transfer-Encoding: identity")],
  ["a coding behind a vertical tab", post("Transfer-Encoding: \x0bchunked")],
  ["a coding in quotes", post('Transfer-Encoding: "chunked"')],
  ["a coding with a parameter", post("Transfer-Encoding: chunked;a=b")],
  ["identity as a coding", post("Transfer-Encoding: identity", "Content-Length: 0")],
  ["chunked with a length of zero", post(CHUNKED, "Content-Length: 0") + "0\r\n\r\n"],
  ["a size with a sign", chunked("+3", "abc", "0", "", "")],
  ["a size with an underscore", chunked("1_0", "abc", "0", "", "")],
  ["a size with a space before it", chunked(" 3", "abc", "0", "", "")],
  ["an empty size", chunked("", "abc", "0", "", "")],
  ["a size of 65 bits", chunked("10000000000000003", "abc", "0", "", "")],
  ["content not followed by CRLF", post(CHUNKED) + "3\r\nabcX\r\n0\r\n\r\n"],
  ["content followed by LF alone", post(CHUNKED) + "3\r\nabc\n0\r\n\r\n"],
  ["an extension ended by LF alone", post(CHUNKED) + "3;a\nabc\r\n0\r\n\r\n"],
  ["NUL in an extension", chunked("3;a=\0", "abc", "0", "", "")],
  ["the last chunk ended by LF alone", post(CHUNKED) + "0\n\r\n"],
  ["a trailer with a space before its colon", chunked("0", "X-A : 1", "", "")],
  ["a trailer with a bare CR", chunked("0", "X-A: 1\rX-B: 2", "", "")],
  ["a length among the trailers", chunked("0", "Content-Length: 9", "", "")],
  ["a folded trailer", chunked("0", "X-A: 1", " 2", "", "")],
])("refused, and nothing behind it is let through: %s", async (_name, bytes) => {
  const { app, statuses } = await run(bytes);
  expect(statuses.length).toBeLessThanOrEqual(1);
  for (const status of statuses) expect([400, 413, 431, 505]).toContain(status);
  // Content that came before the mistake may have gone out: as a request that never ends.
  expect(app.whole).toEqual([]);
});

const GET_OUT = ["GET /outer HTTP/1.1", "Host: a"];
const POST_OUT = ["POST /outer HTTP/1.1", "Host: a"];

test.each<[string, string, string]>([
  ["nothing but a host", get(), head(...(GET_OUT as [string, string]))],
  ["spaces around a value", get("X-A: \t 1 2 \t"), lines(...GET_OUT, "X-A: 1 2", "", "")],
  ["an empty value", get("X-A:"), lines(...GET_OUT, "X-A: ", "", "")],
  [
    "bytes beyond ASCII in a value",
    get("X-A: \xe9\xff"),
    lines(...GET_OUT, "X-A: \xe9\xff", "", ""),
  ],
  [
    "every character of a token in a name",
    get("!#$%&'*+-.^_`|~1: 1"),
    lines(...GET_OUT, "!#$%&'*+-.^_`|~1: 1", "", ""),
  ],
  ["an empty line before the request", `\r\n${get()}`, lines(...GET_OUT, "", "")],
  [
    "an empty host",
    head("GET /outer HTTP/1.1", "Host:"),
    lines("GET /outer HTTP/1.1", "Host: ", "", ""),
  ],
  [
    "leading zeros of a length",
    post("Content-Length: 0003") + "abc",
    lines(...POST_OUT, "Content-Length: 3", "", "abc"),
  ],
  ["no content at all in a POST", post(), lines(...POST_OUT, "content-length: 0", "", "")],
  [
    "content of a GET",
    get("Content-Length: 3") + "abc",
    lines(...GET_OUT, "Content-Length: 3", "", "abc"),
  ],
  [
    "fields of the connection",
    get("Connection: X-Gone", "X-Gone: 1", "Keep-Alive: 9", "Proxy-Connection: x", "TE: trailers"),
    lines(...GET_OUT, "", ""),
  ],
  [
    "fields that Connection may not name",
    get("Connection: Host, Content-Length", "Content-Length: 3") + "abc",
    lines(...GET_OUT, "Content-Length: 3", "", "abc"),
  ],
  [
    "an upgrade that is not asked for by Connection",
    get("Upgrade: websocket"),
    lines(...GET_OUT, "", ""),
  ],
  [
    "a trailer field without chunks",
    get("Trailer: X-A"),
    lines(...GET_OUT, "Trailer: X-A", "", ""),
  ],
  [
    "a name that only looks like a coding",
    get("Transfer_Encoding: chunked"),
    lines(...GET_OUT, "Transfer_Encoding: chunked", "", ""),
  ],
])("passed on as it is: %s", async (_name, bytes, expected) => {
  const { app, statuses } = await run(bytes);
  expect(statuses).toEqual([200, 200]);
  // What undici writes of its own is compared without regard to case.
  const got = without(app.bytes());
  const plain = (text: string) =>
    text.replace(/^(host|content-length|transfer-encoding):/gim, (all) => all.toLowerCase());
  expect(plain(got)).toBe(plain(expected));
});

/** How content is framed is between two neighbours: what counts is that it is framed once, and is the same. */
test.each<[string, string, string]>([
  ["chunks", chunked("3", "abc", "2", "de", "0", "", ""), "abcde"],
  ["chunk extensions", chunked('3;a=1;b="c"', "abc", "0;last", "", ""), "abc"],
  ["sizes with zeros and capitals", chunked("00A", "0123456789", "00", "", ""), "0123456789"],
  ["chunked in capitals", `${post("Transfer-Encoding: CHUNKED")}3\r\nabc\r\n0\r\n\r\n`, "abc"],
  ["what looks like a request", chunked("4", "GET ", "0", "", ""), "GET "],
])("content arrives whole: %s", async (_name, bytes, content) => {
  const { app, statuses } = await run(bytes);
  expect(statuses).toEqual([200, 200]);
  expect(app.whole.toSorted()).toEqual(["", content].toSorted());
  const framing = app.bytes().match(/^(content-length|transfer-encoding): .*$/gim) ?? [];
  expect(framing).toHaveLength(1);
});

test("OPTIONS * asks the app itself", async () => {
  const { app, statuses } = await run(head("OPTIONS * HTTP/1.1", "Host: a", "X-A: 1"));
  expect(statuses).toEqual([200, 200]);
  expect(app.bytes()).toMatch(/OPTIONS \* HTTP\/1\.1\r\nHost: a\r\nX-A: 1\r\n/);
});

test("a chain of proxies is added to, also when this one is in it already", async () => {
  const { app } = await run(get("Via: 1.0 fred, 1.1 crossfade", "X-Forwarded-For: 1.2.3.4"));
  expect(app.bytes()).toContain("\r\nvia: 1.0 fred, 1.1 crossfade, 1.1 crossfade\r\n");
  expect(app.bytes()).toContain("\r\nx-forwarded-for: 1.2.3.4, 127.0.0.1\r\n");
});

test("3,000 fields arrive, and the length that comes after them counts", async () => {
  const fields = Array.from({ length: 3_000 }, (_, n) => `X-${n}: 1`);
  const { app, statuses } = await run(post(...fields, "Content-Length: 3") + "abc");
  expect(statuses).toEqual([200, 200]);
  expect(app.whole.toSorted()).toEqual(["", "abc"]);
  expect(app.bytes()).toContain("\r\nX-2999: 1\r\n");
});

test.each([
  ["100-continue", "Expect: 100-continue", [100, 200, 200]],
  ["100-continue in capitals", "Expect: 100-CONTINUE", [100, 200, 200]],
])("expect: %s is answered here, and not passed on", async (_name, field, expected) => {
  const { app, statuses } = await run(post(field, "Content-Length: 3") + "abc");
  expect(statuses).toEqual(expected);
  expect(app.whole.toSorted()).toEqual(["", "abc"]);
  expect(app.bytes()).not.toMatch(/expect/i);
});

test("an expectation that nobody knows: 417", async () => {
  const { app, statuses } = await run(post("Expect: a-miracle", "Content-Length: 3") + "abc");
  expect(statuses[0]).toBe(417);
  expect(app.whole.filter((content) => content !== "")).toEqual([]);
});

test.each(["b", "a"])(
  "two hosts, the second %s: refused, and not by ending the connection",
  async (host) => {
    const { app, statuses } = await run(get(`Host: ${host}`));
    expect(statuses).toEqual([400, 200]);
    expect(app.bytes()).not.toContain("/outer");
  },
);

test("CONNECT makes no tunnel", async () => {
  const { app, answer } = await run(head("CONNECT b:443 HTTP/1.1", "Host: b:443"));
  expect(answer).not.toMatch(/ 200 /);
  expect(app.bytes()).toBe("");
});

test("HTTP/1.0: without a host, with content, and never kept open or answered in chunks", async () => {
  const { app, answer, statuses } = await run(
    `${head("POST /outer HTTP/1.0", "Content-Length: 3")}abc`,
    "",
  );
  expect(statuses).toEqual([200]);
  expect(answer).not.toMatch(/transfer-encoding/i);
  expect(app.whole).toEqual(["abc"]);
  expect(app.bytes()).toContain("via: 1.0 crossfade");
});

test("HTTP/1.0 with chunks lets nothing through behind them", async () => {
  const { app } = await run(head("POST /outer HTTP/1.0", "Host: a", CHUNKED) + "0\r\n\r\n");
  expect(app.bytes()).not.toContain("/second");
});

test("an absolute target arrives as it was sent", async () => {
  const { app, statuses } = await run(head("GET http://b/outer?x HTTP/1.1", "Host: a"));
  expect([statuses, app.bytes().split(" HTTP", 1)[0]]).toEqual([
    [200, 200],
    "GET http://b/outer?x",
  ]);
});
