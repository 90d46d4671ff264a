import http from "node:http";
import type { IncomingMessage, Server, ServerOptions } from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { ClientLimits, ListenAddress } from "../config/plan-types.ts";
import { createHttp2Server } from "./http2.ts";
import { inTurn } from "./in-turn.ts";
import type { ClientRequest, ClientResponse } from "./inbound.ts";
import type { TlsWatch } from "./tls-watch.ts";
import { becomesTunnel } from "./upgrades.ts";

export interface ServerHandlers {
  /** `expectsContinue`: the client waits for `100 Continue` before it sends content. */
  readonly onRequest: (
    request: ClientRequest,
    response: ClientResponse,
    expectsContinue: boolean,
  ) => void;
  /** A request that becomes a tunnel. Its connection has no other use any more, and breaks without harm. */
  readonly onUpgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

/** How often Node looks for clients that are slow with the head of a request, at most. */
const CHECK_MS = 5_000;
/** A client that is gone without a word is noticed by the kernel, also behind a stream or a tunnel in which nothing is said for hours. */
const ALIVE_MS = 60_000;

/** Where clients connect. */
export interface ClientServer {
  /**
   * Binds the address and returns the server's URL. `shared`: other sidecars listen there too, and the kernel deals out the
   * connections. Throws PORT_IN_USE when somebody else has it.
   */
  bind(address: ListenAddress, shared: boolean): Promise<string>;
  /** Stops listening and closes idle connections. Resolves when the last connection is gone. */
  close(): Promise<void>;
  closeIdle(): void;
  closeAll(): void;
}

/** The HTTP server: Node's own, for everything that Node parses (docs/decisions/sidecar-on-node-http.md). */
export function createServer(limits: ClientLimits, handlers: ServerHandlers): ClientServer {
  const server = listening(http.createServer(optionsOf(limits)), limits, handlers);
  return {
    bind: async (address, shared) => bind(server, { ...address, shared }, "http"),
    close: async () => closed(server),
    closeIdle: () => server.closeIdleConnections(),
    closeAll: () => server.closeAllConnections(),
  };
}

/**
 * The same over TLS. The client chooses by ALPN: HTTP/1.1 is served exactly like without TLS, HTTP/2 by a server of its own
 * (docs/decisions/tls-and-http2.md).
 */
export function createTlsServer(
  limits: ClientLimits,
  tls: TlsWatch,
  handlers: ServerHandlers,
): ClientServer {
  const http2 = createHttp2Server(limits, handlers.onRequest);
  const server = https.createServer({
    ...optionsOf(limits),
    ...contextOf(tls),
    // With authorities of clients in the plan, a client without their certificate does not get through the handshake.
    requestCert: tls.current.ca !== undefined,
    rejectUnauthorized: true,
    ALPNProtocols: ["h2", "http/1.1"],
    handshakeTimeout: limits.headerTimeoutMs,
  });
  const http1 = server.listeners("secureConnection");
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket: TLSSocket) => {
    if (socket.alpnProtocol === "h2") http2.accept(socket);
    else for (const serve of http1) serve.call(server, socket);
  });
  tls.onChange(() => server.setSecureContext(contextOf(tls)));
  listening(server, limits, handlers);
  return {
    bind: async (address, shared) => bind(server, { ...address, shared }, "https"),
    close: async () => {
      http2.close();
      await closed(server);
    },
    closeIdle: () => server.closeIdleConnections(),
    closeAll: () => {
      server.closeAllConnections();
      http2.destroy();
    },
  };
}

function contextOf({ current: { cert, key, ca } }: TlsWatch) {
  return {
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(ca === undefined ? {} : { ca }),
  };
}

function optionsOf(limits: ClientLimits): ServerOptions {
  return {
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headerTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECK_MS, limits.headerTimeoutMs),
    keepAliveTimeout: limits.idleTimeoutMs,
    // Uploads take as long as they take.
    requestTimeout: 0,
    shouldUpgradeCallback: becomesTunnel,
    keepAlive: true,
    keepAliveInitialDelay: ALIVE_MS,
  };
}

function listening<S extends Server | https.Server>(
  server: S,
  limits: ClientLimits,
  handlers: ServerHandlers,
): S {
  server.maxConnections = limits.connections;
  // The size of a head limits its fields; how many there may be is for the app to say.
  server.maxHeadersCount = 0;
  server.on("request", (request, response) =>
    inTurn(response, () => handlers.onRequest(request, response, false)),
  );
  server.on("checkContinue", (request, response) =>
    inTurn(response, () => handlers.onRequest(request, response, true)),
  );
  server.on("upgrade", (request, socket, head) => {
    // Node has let go of the connection: from here on nobody else listens.
    socket.on("error", () => socket.destroy());
    // Node before 24.9 takes every upgrade without asking.
    if (becomesTunnel(request)) handlers.onUpgrade(request, socket, head);
    else socket.destroy();
  });
  return server;
}

interface Bound extends ListenAddress {
  readonly shared: boolean;
}

async function bind(
  server: Server | https.Server,
  address: Bound,
  scheme: "http" | "https",
): Promise<string> {
  const { host, port, shared } = address;
  try {
    await listen(server, address);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EADDRINUSE") {
      throw new CrossfadeError("USAGE", `cannot listen on ${host}:${port}: ${messageOf(error)}`, {
        hint: shared
          ? "proxy.listen in the plan names the address. More than one of proxy.processes needs Linux or FreeBSD."
          : "proxy.listen in the plan names the address.",
        cause: error,
      });
    }
    throw new CrossfadeError("PORT_IN_USE", `${host}:${port} is in use by another process`, {
      hint: `Stop that process, or set another address as proxy.listen in the plan.`,
      cause: error,
    });
  }
  const bound = server.address() as AddressInfo;
  const name = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return `${scheme}://${name}:${bound.port}`;
}

async function listen(server: Server | https.Server, { host, port, shared }: Bound): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, reusePort: shared }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

async function closed(server: Server | https.Server): Promise<void> {
  await new Promise<void>((resolve) => {
    // Not listening is as good as closed.
    server.close(() => resolve());
  });
}
