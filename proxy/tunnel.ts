import http from "node:http";
import type { IncomingMessage } from "node:http";
import https from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Side } from "../config/words.ts";
import { requestHeaders, responseHeaders, sendableText } from "./headers.ts";
import type { RawHeaders } from "./headers.ts";
import { answerForFailure, sendOwnAnswer } from "./replies.ts";
import { protocolsFor } from "./upgrades.ts";
import type { Upstream } from "./upstream.ts";

/** Nobody else would notice that an app's machine is gone while nothing is said. */
const ALIVE_MS = 60_000;

export interface TunnelJob {
  readonly request: IncomingMessage;
  /** The client's connection, and what it sent beyond the head. */
  readonly socket: Duplex;
  readonly head: Buffer;
  readonly url: string;
  readonly requestId: string;
  readonly side: Side;
  readonly upstream: Upstream;
  readonly ownHeaders: readonly string[];
  readonly headTimeoutMs: number;
  /** Cookies whose names begin with it do not go to the app. */
  readonly ownCookies: string | undefined;
}

/**
 * Passes an upgrade (WebSocket or any other) to an app: the app's answer goes back as it is, 101 or not, and from then on
 * bytes are copied both ways. Sub-protocols, extensions, pings and close codes are between the two ends. `onOver` is called once
 * both connections are closed.
 */
export function openTunnel(job: TunnelJob, onOver: (failed: boolean) => void): void {
  const { socket, upstream, request } = job;
  const client = upstream.url.protocol === "https:" ? https : http;
  const asked = client.request({
    ...upstream.tls.options,
    protocol: upstream.url.protocol,
    hostname: upstream.url.hostname.replace(/^\[|\]$/g, ""),
    port: upstream.url.port,
    method: request.method,
    path: upstream.path(job.url),
    headers: upgradeHeaders(job),
    setDefaultHeaders: false,
    // A connection of its own: it is not given back.
    agent: false,
    timeout: job.headTimeoutMs,
  });
  let failed = false;
  let answered = false;
  socket.once("close", () => {
    asked.destroy();
    onOver(failed);
  });
  asked.on("timeout", () =>
    asked.destroy(Object.assign(new Error("no answer"), { code: "ETIMEDOUT" })),
  );
  asked.on("error", (error: Error) => {
    failed = true;
    upstream.tls.failed(error);
    // The app broke off in the middle of its answer.
    if (answered) socket.destroy();
    else refuse(job, error);
  });
  asked.on("upgrade", (answer, appSocket, head) => {
    appSocket.setTimeout(0);
    appSocket.setKeepAlive(true, ALIVE_MS);
    socket.write(headOf(answer, keepUpgrade(answer, job.ownHeaders)));
    join(socket, job.head, appSocket, head);
  });
  asked.on("response", (answer) => {
    answered = true;
    relayRefusal(job, answer);
  });
  asked.end();
}

/** Hop-by-hop fields are dropped, and the upgrade asked for is asked for again. */
function upgradeHeaders({ request, side, requestId, ownCookies }: TunnelJob): RawHeaders {
  const headers = requestHeaders(request, side, requestId, ownCookies);
  return [...headers, "connection", "Upgrade", "upgrade", protocolsFor(request)];
}

function keepUpgrade(answer: IncomingMessage, own: readonly string[]): RawHeaders {
  const headers = responseHeaders(answer.rawHeaders, own, false);
  return [...headers, "Connection", "Upgrade", "Upgrade", answer.headers.upgrade ?? ""];
}

function headOf(answer: IncomingMessage, headers: RawHeaders): Buffer {
  let text = `HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\n`;
  for (let index = 0; index < headers.length; index += 2)
    text += `${headers[index]}: ${headers[index + 1]}\r\n`;
  return Buffer.from(`${text}\r\n`, "latin1");
}

/** Copies both ways. Either end closing closes the other; a broken one breaks the other. */
function join(client: Duplex, clientHead: Buffer, app: Duplex, appHead: Buffer): void {
  app.on("error", () => client.destroy());
  app.once("close", () => {
    if (client.writableFinished) client.destroy();
    else client.end(() => client.destroy());
  });
  client.once("close", () => app.destroy());
  if (clientHead.length > 0) app.write(clientHead);
  if (appHead.length > 0) client.write(appHead);
  client.pipe(app);
  app.pipe(client);
}

/** The app does not upgrade: its answer is passed on, and the connection ends with it. */
function relayRefusal(job: TunnelJob, answer: IncomingMessage): void {
  const response = answerOn(job);
  const headers = responseHeaders(answer.rawHeaders, job.ownHeaders, false);
  response.writeHead(answer.statusCode ?? 502, sendableText(answer.statusMessage), headers);
  // Broken off: without the last chunk, or short of its length, it does not look whole.
  answer.on("error", () => job.socket.destroy());
  answer.pipe(response);
}

function refuse(job: TunnelJob, error: Error): void {
  if (job.socket.destroyed) return;
  sendOwnAnswer(answerOn(job), answerForFailure(job.side, error), job.ownHeaders);
}

/** An ordinary HTTP answer on a connection that asked for an upgrade. */
function answerOn({ request, socket }: TunnelJob): http.ServerResponse {
  const response = new http.ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket as Socket);
  response.on("finish", () => socket.end(() => socket.destroy()));
  return response;
}
