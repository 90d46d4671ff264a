import http from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import https from "node:https";
import type { ServerOptions } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { onTestFinished } from "vitest";

export interface ByteApp {
  readonly url: string;
  readonly server: http.Server | https.Server;
  /** Every byte that came in, over all connections. */
  bytes(): string;
  /** Content of requests that arrived whole, in order. */
  readonly whole: string[];
}

export type ByteAppHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** A real server that records raw bytes; over TLS if `tls` is given. Answers `ok` once a request has arrived whole. */
export async function startByteApp(
  options: { tls?: ServerOptions; answer?: ByteAppHandler } = {},
): Promise<ByteApp> {
  const parts: Buffer[] = [];
  const whole: string[] = [];
  const answer = options.answer ?? ((_request, response) => void response.end("ok"));
  const handle: ByteAppHandler = (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("error", () => {});
    request.on("end", () => {
      whole.push(Buffer.concat(chunks).toString("latin1"));
      answer(request, response);
    });
  };
  const { tls } = options;
  const limits = { maxHeaderSize: 1 << 20 };
  const server =
    tls === undefined
      ? http.createServer(limits, handle)
      : https.createServer({ ...limits, ...tls }, handle);
  server.maxHeadersCount = 0;
  // After Node's own listener: one that comes before it would be passed by, Node reads below the stream.
  server.on(
    tls === undefined ? "connection" : "secureConnection",
    (socket: Socket) => void socket.on("data", (part) => parts.push(part)),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const scheme = tls === undefined ? "http" : "https";
  const { port } = server.address() as AddressInfo;
  return {
    url: `${scheme}://127.0.0.1:${port}`,
    server,
    bytes: () => Buffer.concat(parts).toString("latin1"),
    whole,
  };
}
