import type { Socket } from "node:net";
import { buildConnector, Pool } from "undici";
import type { AppTimeouts } from "../config/plan-types.ts";
import type { AppTls } from "./app-tls.ts";

export interface UpstreamTimeouts extends AppTimeouts {
  /** `headMs` for a read that another side can answer instead. */
  readonly fallbackHeadMs: number;
}

/** As large a head as an app may answer with. */
const MAX_HEADER_BYTES = 64 * 1024;

/**
 * An idle connection is given up before the app does: a request sent into a connection that the app is closing is lost, and a
 * write is never sent again. Servers in use close after 2 s (gunicorn) to 5 s (Node); a server that says so is believed.
 */
const IDLE_MS = 1_000;
const IDLE_MAX_MS = 4_000;

/** The app of one side. */
export class Upstream {
  readonly url: URL;
  readonly pool: Pool;
  readonly tls: AppTls;
  readonly #basePath: string;

  constructor(app: string, tls: AppTls, timeouts: UpstreamTimeouts) {
    this.tls = tls;
    this.url = new URL(app);
    this.#basePath = this.url.pathname === "/" ? "" : this.url.pathname.replace(/\/$/, "");
    this.pool = new Pool(this.url.origin, {
      connect: connectorOf(timeouts.connectMs, tls),
      allowH2: false,
      // One request at a time on a connection: with more, one that breaks takes others with it.
      pipelining: 1,
      keepAliveTimeout: IDLE_MS,
      keepAliveMaxTimeout: IDLE_MAX_MS,
      keepAliveTimeoutThreshold: 1_000,
      headersTimeout: timeouts.headMs,
      // Between two parts of an answer any time may pass: event streams.
      bodyTimeout: 0,
      maxHeaderSize: MAX_HEADER_BYTES,
    });
  }

  /** The path to ask the app for: the client's own, byte for byte, below the app's base path. */
  path(url: string): string {
    return url.startsWith("/") ? this.#basePath + url : url;
  }

  async destroy(): Promise<void> {
    this.tls.stop();
    await this.pool.destroy();
  }
}

/** Opens connections to an app, over TLS as the plan says. */
export function connectorOf(timeout: number, tls: AppTls): buildConnector.connector {
  let { options } = tls;
  const make = () => buildConnector({ timeout, allowH2: false, ...options });
  let connect = make();
  return (target, callback) => {
    if (options !== tls.options) {
      options = tls.options;
      connect = make();
    }
    connect(target, (...result: buildConnector.CallbackArgs) => {
      const [error] = result;
      if (error !== null) tls.failed(error);
      // On failure undici passes the error alone.
      const socket: Socket | null | undefined = result[1];
      if (socket) reportResets(socket, tls);
      callback(...result);
    });
  };
}

/**
 * undici takes a reset connection for the end of an answer that has no length (a work-around for macOS), which makes a
 * truncated answer look whole. It knows a reset by its code, so the code is changed before undici sees it.
 */
function reportResets(socket: Socket, tls: AppTls): void {
  socket.prependListener("error", (error: NodeJS.ErrnoException) => {
    // With TLS 1.3 an app refuses the sidecar's certificate only after the handshake.
    tls.failed(error);
    if (error.code === "ECONNRESET") error.code = "ECONNABORTED";
  });
}
