import { Readable } from "node:stream";
import { contentLength } from "./headers.ts";
import type { ClientRequest } from "./inbound.ts";

/** What is forwarded as the request's content. */
export type RequestBody = Buffer | Readable | null;

/** Content up to this size is read before it is sent on: it costs less, and a slow client keeps no write in flight. */
const SMALL_BYTES = 64 * 1024;

/** Whether the whole content is read first; else it is streamed. */
export function isReadFirst(request: ClientRequest): boolean {
  const length = contentLength(request.headers["content-length"]);
  return length !== undefined && length > 0 && length <= SMALL_BYTES;
}

export function hasBody(request: ClientRequest): boolean {
  if (request.headers["transfer-encoding"] !== undefined) return true;
  return (contentLength(request.headers["content-length"]) ?? 0) > 0;
}

/**
 * Reads small content. A client that leaves in the middle never calls back: its response closes. One that pauses for longer than
 * `limitMs` is cut off.
 */
export function readSmall(
  request: ClientRequest,
  limitMs: number,
  done: (body: Buffer) => void,
): void {
  const chunks: Buffer[] = [];
  const limit = setTimeout(() => request.destroy(), limitMs);
  request.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    limit.refresh();
  });
  request.on("close", () => clearTimeout(limit));
  request.on("end", () => {
    clearTimeout(limit);
    done(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks));
  });
}

/**
 * The request's content as a stream for undici, with backpressure. Not the request itself: undici destroys what it was
 * given when the app answers before it has read everything, and destroying the request would cut the client off from that
 * answer. A client that sends nothing for `limitMs` while the app reads is cut off.
 */
export function streamBody(request: ClientRequest, limitMs: number): Readable {
  // While the app does not read, the client is not the one who is slow.
  const limit = setTimeout(() => {
    if (!request.isPaused()) request.destroy();
  }, limitMs);
  const goOn = () => {
    limit.refresh();
    request.resume();
  };
  const body = new Readable({ read: goOn });
  request.on("data", (chunk: Buffer) => {
    limit.refresh();
    if (body.destroyed) request.resume();
    else if (!body.push(chunk)) request.pause();
  });
  request.on("end", () => {
    clearTimeout(limit);
    body.push(null);
  });
  request.on("close", () => {
    clearTimeout(limit);
    if (!request.complete)
      body.destroy(new Error("the client left before its request was complete"));
  });
  // undici listens too, but not always yet, or not any more.
  body.on("error", () => {});
  // What the app does not want to read is read to nowhere, so that the connection can be used again.
  body.on("close", () => request.resume());
  return body;
}
