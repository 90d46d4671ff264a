import { METHODS } from "node:http";
import type { IncomingHttpHeaders } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import { contentLength } from "./headers.ts";
import type { ClientRequest } from "./inbound.ts";

export interface Peer {
  readonly remoteAddress: string | undefined;
  readonly encrypted: true;
}

/** Fields of a request in HTTP/1.1's terms, or why there is no such request. */
export interface Translated {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: string[];
  readonly headers: IncomingHttpHeaders;
}

/**
 * RFC 9113 §8.3: the target is in pseudo fields, `:authority` stands for `host`, and a cookie may come in crumbs (§8.2.3). nghttp2
 * has refused by now what is malformed: upper case, connection fields, a length that does not fit, CR, LF and NUL in values.
 * A sentence: the request cannot be passed on.
 */
export function translate(raw: readonly string[], isWhole: boolean): Translated | string {
  const pseudo: Record<string, string> = {};
  const fields: string[] = [];
  const cookies: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index] ?? "";
    const value = raw[index + 1] ?? "";
    if (name.startsWith(":")) pseudo[name] = value;
    else if (name === "cookie") cookies.push(value);
    else fields.push(name, value);
  }
  if (cookies.length > 0) fields.push("cookie", cookies.join("; "));
  const method = pseudo[":method"] ?? "";
  const url = pseudo[":path"] ?? "";
  if (!METHODS.includes(method) || method === "CONNECT") return `the method ${method}`;
  if (!url.startsWith("/") && !(url === "*" && method === "OPTIONS")) return "its path";
  const host = hostOf(pseudo[":authority"], fields);
  if (host === undefined) return "its host: exactly one is needed";
  const rawHeaders = ["host", host, ...withoutHost(fields)];
  const headers = collect(rawHeaders);
  // In HTTP/1.1 a request says whether content follows.
  if (!isWhole && contentLength(headers["content-length"]) === undefined)
    headers["transfer-encoding"] = "chunked";
  return { method, url, rawHeaders, headers };
}

function hostOf(authority: string | undefined, fields: readonly string[]): string | undefined {
  const hosts = fields.filter((_, index) => index % 2 === 1 && fields[index - 1] === "host");
  if (authority !== undefined && authority !== "") hosts.push(authority);
  const [host] = hosts;
  return hosts.every((one) => one.toLowerCase() === host?.toLowerCase()) ? host : undefined;
}

function withoutHost(fields: readonly string[]): string[] {
  return fields.filter((_, index) => fields[index - (index % 2)] !== "host");
}

/** As Node does it for HTTP/1.1: a few fields count once, the others are joined. */
function collect(raw: readonly string[]): IncomingHttpHeaders {
  const headers: IncomingHttpHeaders = Object.create(null) as IncomingHttpHeaders;
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index] ?? "";
    const value = raw[index + 1] ?? "";
    const before = headers[name];
    if (before === undefined) headers[name] = value;
    else if (!FIRST_COUNTS.has(name)) headers[name] = `${String(before)}, ${value}`;
  }
  return headers;
}

const FIRST_COUNTS: ReadonlySet<string> = new Set([
  "authorization",
  "content-length",
  "content-type",
  "host",
  "user-agent",
]);

/** One stream's request. */
export class Http2Request implements ClientRequest {
  readonly httpVersion = "2";
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  readonly headers: IncomingHttpHeaders;
  readonly socket: Peer;
  rawTrailers: readonly string[] = [];
  complete: boolean;
  readonly #stream: ServerHttp2Stream;
  #closed = false;
  readonly #onClose: (() => void)[] = [];

  constructor(stream: ServerHttp2Stream, peer: Peer, fields: Translated, isWhole: boolean) {
    this.#stream = stream;
    this.socket = peer;
    this.method = fields.method;
    this.url = fields.url;
    this.rawHeaders = fields.rawHeaders;
    this.headers = fields.headers;
    this.complete = isWhole;
    stream.on("trailers", (_headers: unknown, _flags: number, raw: string[]) => {
      this.rawTrailers = raw;
    });
    // A reset ends the content too: only content that ended before it is whole.
    stream.on("end", () => {
      if (!stream.closed && !stream.aborted) this.complete = true;
    });
    stream.on("aborted", () => this.#close());
    stream.on("close", () => this.#close());
  }

  on(event: "data", listener: (chunk: Buffer) => void): void;
  on(event: "end" | "close", listener: () => void): void;
  on(event: "error", listener: (error: Error) => void): void;
  on(event: "data" | "end" | "close" | "error", listener: (value: never) => void): void {
    const call = listener as (value?: unknown) => void;
    if (event === "close") this.#onClose.push(call);
    else if (event === "end") this.#stream.on("end", () => this.complete && call());
    else this.#stream.on(event, call);
  }

  isPaused(): boolean {
    return this.#stream.isPaused();
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  destroy(): void {
    this.#stream.close(CANCEL);
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const call of this.#onClose) call();
  }
}

/** NGHTTP2_CANCEL. */
const CANCEL = 8;
