import http2 from "node:http2";
import type { ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { TLSSocket } from "node:tls";
import type { ClientLimits } from "../config/plan-types.ts";
import { Http2Request, translate } from "./http2-request.ts";
import type { Peer } from "./http2-request.ts";
import { Http2Response } from "./http2-response.ts";
import { answerForUntranslatable, sendOwnAnswer } from "./replies.ts";
import type { ServerHandlers } from "./server.ts";

/** Of one connection. */
const MAX_STREAMS = 250;
const MAX_FIELDS = 4_000;
/** All uploads of a connection together; each has 64 KiB of its own, which bounds what a held one keeps in memory. */
const WINDOW_BYTES = 1 << 20;

export interface Http2Server {
  /** A connection whose client chose HTTP/2. */
  accept(socket: TLSSocket): void;
  /** Takes no more requests (GOAWAY); connections end with their last answer. */
  close(): void;
  destroy(): void;
}

/** HTTP/2 from clients, on connections that a TLS server has accepted. Towards the apps it is HTTP/1.1. */
export function createHttp2Server(
  limits: ClientLimits,
  onRequest: ServerHandlers["onRequest"],
): Http2Server {
  const sessions = new Set<ServerHttp2Session>();
  let closing = false;
  const server = http2.createServer({
    settings: { maxHeaderListSize: limits.headerBytes, maxConcurrentStreams: MAX_STREAMS },
    maxHeaderListPairs: MAX_FIELDS,
    // What an app repeats is repeated to the client.
    strictSingleValueFields: false,
  });
  // Connections of clients that break the protocol end; that is all there is to say.
  server.on("sessionError", () => {});
  server.on("session", (session) => {
    sessions.add(session);
    session.setLocalWindowSize(WINDOW_BYTES);
    session.on("close", () => sessions.delete(session));
    serve(session, limits, onRequest);
    if (closing) session.close();
  });
  return {
    accept: (socket) => void server.emit("connection", socket),
    close: () => {
      closing = true;
      for (const session of sessions) session.close();
    },
    destroy: () => {
      for (const session of sessions) session.destroy();
    },
  };
}

function serve(
  session: ServerHttp2Session,
  limits: ClientLimits,
  onRequest: ServerHandlers["onRequest"],
): void {
  const peer: Peer = { remoteAddress: session.socket.remoteAddress, encrypted: true };
  let streams = 0;
  // A quiet stream (events) is no idle connection.
  session.setTimeout(limits.idleTimeoutMs, () => {
    if (streams === 0) session.close();
  });
  session.on("stream", (stream: ServerHttp2Stream, _headers, flags: number, raw: string[]) => {
    streams += 1;
    stream.on("close", () => (streams -= 1));
    begin(stream, peer, (flags & http2.constants.NGHTTP2_FLAG_END_STREAM) !== 0, raw, onRequest);
  });
}

function begin(
  stream: ServerHttp2Stream,
  peer: Peer,
  isWhole: boolean,
  raw: readonly string[],
  onRequest: ServerHandlers["onRequest"],
): void {
  const fields = translate(raw, isWhole);
  if (typeof fields === "string") {
    const response = new Http2Response(stream, () => isWhole);
    sendOwnAnswer(response, answerForUntranslatable(fields), []);
    return;
  }
  const request = new Http2Request(stream, peer, fields, isWhole);
  const response = new Http2Response(stream, () => request.complete);
  // Nobody reads what is empty, and unread it would keep the stream open.
  if (isWhole) stream.resume();
  onRequest(request, response, fields.headers.expect?.toLowerCase() === "100-continue");
}
