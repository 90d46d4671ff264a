import type { Side } from "../config/words.ts";
import { cameOverTls } from "./inbound.ts";
import type { ClientRequest } from "./inbound.ts";
import type { TraceFields } from "./trace/ports.ts";

/** Header fields as Node and undici take them: name, value, name, value: case, order and repetition stay. */
export type RawHeaders = string[];

/** RFC 9110 §7.6.1: these concern one connection only. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "transfer-encoding",
  "upgrade",
]);
/** What a `Connection` field may not take away: they frame the message or say whom it is for. */
const NEVER_DROPPED: ReadonlySet<string> = new Set(["host", "content-length", "content-type"]);
/** Set anew on the way to the app. `expect` is answered by this sidecar. */
const REPLACED_IN_REQUEST: ReadonlySet<string> = new Set([
  "crossfade-side",
  "crossfade-token",
  "expect",
  "via",
  "x-forwarded-for",
  "x-request-id",
]);
const NEVER_A_TRAILER: ReadonlySet<string> = new Set([
  "authorization",
  "content-encoding",
  "content-length",
  "content-range",
  "content-type",
  "cookie",
  "host",
  "trailer",
  "x-forwarded-host",
  "x-forwarded-proto",
]);
/** A longer span is not one head: most of it would be decoded for nothing. */
const MAX_HEAD_BYTES = 16 * 1024;
const VIA = "1.1 crossfade";
const REPLACED_IN_RESPONSE: ReadonlySet<string> = new Set([
  "crossfade-side",
  "crossfade-mirrored",
  "crossfade-consistency",
]);

/** What a field's name decides. */
interface FieldName {
  readonly lower: string;
  /** Does not go on to the app, and not to the client. */
  readonly staysFromApp: boolean;
  readonly staysFromClient: boolean;
  readonly isOwnInResponse: boolean;
}

/** Names as they came: there are few, and each is judged once. What clients make up is not remembered beyond this many. */
const MAX_NAMES = 512;
const names = new Map<string, FieldName>();

function nameOf(name: string): FieldName {
  const known = names.get(name);
  if (known !== undefined) return known;
  const lower = name.toLowerCase();
  const judged: FieldName = {
    lower,
    staysFromApp: HOP_BY_HOP.has(lower) || REPLACED_IN_REQUEST.has(lower),
    staysFromClient: HOP_BY_HOP.has(lower),
    isOwnInResponse: REPLACED_IN_RESPONSE.has(lower),
  };
  if (names.size < MAX_NAMES && name.length <= 64) names.set(name, judged);
  return judged;
}

/** The request's header fields towards the app. Cookies whose names begin with `ownCookies` stay here. */
export function requestHeaders(
  request: ClientRequest,
  side: Side,
  requestId: string,
  ownCookies: string | undefined,
  trace?: TraceFields,
): RawHeaders {
  const { rawHeaders, headers, socket } = request;
  const named = namedByConnection(headers.connection);
  const out: RawHeaders = [];
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? "";
    const { lower, staysFromApp } = nameOf(name);
    if (staysFromApp || named?.has(lower) === true) continue;
    if (trace !== undefined && isReplacedBy(trace, lower)) continue;
    const value = rawHeaders[index + 1] ?? "";
    if (lower !== "cookie" || ownCookies === undefined || !value.includes(ownCookies)) {
      out.push(name, value);
      continue;
    }
    const others = withoutOwn(value, ownCookies);
    if (others !== "") out.push(name, others);
  }
  const address = socket.remoteAddress ?? "unknown";
  out.push("x-forwarded-for", append(headers["x-forwarded-for"], address));
  if (headers["x-forwarded-proto"] === undefined) {
    out.push("x-forwarded-proto", cameOverTls(request) ? "https" : "http");
  }
  if (headers["x-forwarded-host"] === undefined && headers.host !== undefined) {
    out.push("x-forwarded-host", headers.host);
  }
  if (trace !== undefined) out.push("traceparent", trace.traceparent);
  const via = request.httpVersion === "1.1" ? VIA : `${request.httpVersion} crossfade`;
  out.push("via", append(headers.via, via), "x-request-id", requestId, "crossfade-side", side);
  return out;
}

function isReplacedBy(trace: TraceFields, lower: string): boolean {
  return lower === "traceparent" || (lower === "tracestate" && !trace.keepsState);
}

/** Whether trailers may follow the request's content: they are announced, and it comes in chunks. */
export function mayBringTrailers({ headers }: ClientRequest): boolean {
  return headers.trailer !== undefined && headers["content-length"] === undefined;
}

/** The request's trailers towards the app. What frames, routes or names a request is no trailer (RFC 9110 §6.5.1). */
export function requestTrailers({ rawTrailers, headers }: ClientRequest): RawHeaders {
  const named = namedByConnection(headers.connection);
  const out: RawHeaders = [];
  for (let index = 0; index < rawTrailers.length; index += 2) {
    const name = rawTrailers[index] ?? "";
    const { lower, staysFromApp } = nameOf(name);
    if (!staysFromApp && !NEVER_A_TRAILER.has(lower) && named?.has(lower) !== true)
      out.push(name, rawTrailers[index + 1] ?? "");
  }
  return out;
}

/** The response's header fields towards the client; `own` are this sidecar's. */
export function responseHeaders(
  raw: readonly string[],
  own: readonly string[],
  keepTrailer: boolean,
): RawHeaders {
  const named = namedByConnection(valueOf(raw, "connection"));
  const out: RawHeaders = [];
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index] ?? "";
    const { lower, staysFromClient, isOwnInResponse } = nameOf(name);
    if (staysFromClient || named?.has(lower) === true) continue;
    if (own.length > 0 && isOwnInResponse) continue;
    if (lower === "trailer" && !keepTrailer) continue;
    out.push(name, raw[index + 1] ?? "");
  }
  for (const field of own) out.push(field);
  return out;
}

/** The same of an answer 1xx. It has no content, whatever it says: a length would be read into what follows. */
export function informationHeaders(raw: readonly string[]): RawHeaders {
  const out = responseHeaders(raw, [], false);
  return out.filter((_, index) => out[index - (index % 2)]?.toLowerCase() !== "content-length");
}

/** undici gives bytes; header fields are latin1 on the wire, and Node writes them as such. */
export function decodeHeaders(raw: readonly (Buffer | string)[]): RawHeaders {
  const fields: RawHeaders = [];
  const head = commonHead(raw);
  for (const field of raw) {
    if (typeof field === "string") fields.push(field);
    else if (head === undefined) fields.push(field.toString("latin1"));
    else {
      const at = field.byteOffset - head.start;
      fields.push(head.text.slice(at, at + field.length));
    }
  }
  return fields;
}

/**
 * The fields of a head that came in one piece lie in one buffer. Decoding all of that at once and cutting it up costs half of
 * decoding each by itself. Undefined: they do not lie so.
 */
function commonHead(
  raw: readonly (Buffer | string)[],
): { readonly text: string; readonly start: number } | undefined {
  const [first] = raw;
  if (first === undefined || typeof first === "string") return undefined;
  const { buffer, byteOffset: start } = first;
  let end = start;
  for (const field of raw) {
    if (typeof field === "string" || field.buffer !== buffer || field.byteOffset < end)
      return undefined;
    end = field.byteOffset + field.length;
  }
  if (end - start > MAX_HEAD_BYTES) return undefined;
  return { text: Buffer.from(buffer, start, end - start).toString("latin1"), start };
}

/** The text of a status, if Node can send it. It says nothing that the number does not: undefined is the usual text. */
export function sendableText(text: string | undefined): string | undefined {
  return text !== undefined && /^[\t\x20-\x7e\x80-\xff]*$/.test(text) ? text : undefined;
}

/** Whether an app says of a write it has failed that nothing of it was applied: it may be sent again then. */
export function saysNotApplied(raw: readonly string[]): boolean {
  return valueOf(raw, "crossfade-applied")?.toLowerCase() === "no";
}

/** The first value of a field, by its lower-case name. */
export function valueOf(raw: readonly string[], lowerName: string): string | undefined {
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index] ?? "";
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return raw[index + 1];
  }
  return undefined;
}

/** How many octets of content a message announces; undefined: it does not say. */
export function contentLength(value: string | undefined): number | undefined {
  return value !== undefined && /^\d+$/.test(value) ? Number(value) : undefined;
}

/** Fields that `Connection` names are for this hop only. The usual values name none. */
function namedByConnection(connection: string | undefined): Set<string> | undefined {
  if (connection === undefined || connection === "keep-alive" || connection === "close")
    return undefined;
  const names = connection.split(",").map((name) => name.trim().toLowerCase());
  return new Set(names.filter((name) => !NEVER_DROPPED.has(name)));
}

/** The other cookies of a field, as they are. */
function withoutOwn(cookies: string, prefix: string): string {
  return cookies
    .split(";")
    .filter((pair) => !pair.trimStart().startsWith(prefix))
    .join(";")
    .trimStart();
}

function append(list: string | string[] | undefined, item: string): string {
  if (list === undefined) return item;
  return `${typeof list === "string" ? list : list.join(", ")}, ${item}`;
}

/** About how much memory the head of a request takes. */
export function headBytes(url: string, rawHeaders: readonly string[]): number {
  return rawHeaders.reduce((sum, text) => sum + text.length, url.length);
}
