import http from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { ClientLimits, ListenAddress } from "../config/plan-types.ts";

export interface ServerHandlers {
  /** `expectsContinue`: the client waits for `100 Continue` before it sends content. */
  onRequest(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void;
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

/** How often Node looks for clients that are slow with the head of a request, at most. */
const CHECK_MS = 5_000;

/** The HTTP server: Node's own, for everything that Node parses (docs/decisions/sidecar-on-node-http.md). */
export function createServer(limits: ClientLimits, handlers: ServerHandlers): Server {
  const server = http.createServer({
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headerTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECK_MS, limits.headerTimeoutMs),
    keepAliveTimeout: limits.idleTimeoutMs,
    // Uploads take as long as they take.
    requestTimeout: 0,
  });
  server.maxConnections = limits.connections;
  server.on("request", (request, response) => handlers.onRequest(request, response, false));
  server.on("checkContinue", (request, response) => handlers.onRequest(request, response, true));
  server.on("upgrade", (request, socket, head) => handlers.onUpgrade(request, socket, head));
  return server;
}

/** Binds the address and returns the server's URL. Throws PORT_IN_USE when somebody else has it. */
export async function bind(server: Server, { host, port }: ListenAddress): Promise<string> {
  try {
    await listen(server, host, port);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EADDRINUSE") {
      throw new CrossfadeError("USAGE", `cannot listen on ${host}:${port}: ${messageOf(error)}`, {
        hint: "proxy.listen in the plan names the address.",
        cause: error,
      });
    }
    throw new CrossfadeError("PORT_IN_USE", `${host}:${port} is in use by another process`, {
      hint: `Stop that process, or set another address as proxy.listen in the plan.`,
      cause: error,
    });
  }
  const address = server.address() as AddressInfo;
  const name = address.family === "IPv6" ? `[${address.address}]` : address.address;
  return `http://${name}:${address.port}`;
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/** Stops listening and closes idle connections. Resolves when the last connection is gone. */
export async function closeServer(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    // Not listening is as good as closed.
    server.close(() => resolve());
  });
}
