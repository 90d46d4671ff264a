import type { IncomingHttpHeaders } from "node:http";

/**
 * A client's request, as the sidecar reads it: Node's own for HTTP/1.1, Http2Request for HTTP/2. What it says is always in
 * HTTP/1.1's terms.
 */
export interface ClientRequest {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly httpVersion: string;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  /** Complete at the request's end. */
  readonly rawTrailers: readonly string[];
  /** All of it has arrived. */
  readonly complete: boolean;
  /** `encrypted` is there if it came over TLS. */
  readonly socket: { readonly remoteAddress?: string | undefined };
  on(event: "data", listener: (chunk: Buffer) => void): unknown;
  on(event: "end" | "close", listener: () => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
  isPaused(): boolean;
  pause(): unknown;
  resume(): unknown;
  /** Cuts the client off. */
  destroy(): unknown;
}

/** The answer to it. */
export interface ClientResponse {
  readonly destroyed: boolean;
  readonly headersSent: boolean;
  readonly statusCode: number;
  readonly writableNeedDrain: boolean;
  /** All of it went out. */
  readonly writableFinished: boolean;
  /** Whether HTTP/1.1 may go on with another request on the connection. */
  shouldKeepAlive: boolean;
  on(event: "close", listener: () => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
  once(event: "drain", listener: () => void): unknown;
  writeContinue(): void;
  /** An answer 1xx before the answer; undefined: Node before 24.18 sends none but its own. */
  readonly writeInformation?: (status: number, headers: string[]) => void;
  writeHead(status: number, message: string | undefined, headers: string[]): unknown;
  flushHeaders(): void;
  write(chunk: Buffer): boolean;
  addTrailers(fields: [string, string][]): void;
  end(): unknown;
  end(content: Buffer): unknown;
  end(content: string, encoding: "latin1"): unknown;
  /** Breaks the answer off: it does not look whole. */
  destroy(): unknown;
}

export function isHttp10(request: ClientRequest): boolean {
  return request.httpVersion === "1.0";
}

export function cameOverTls(request: ClientRequest): boolean {
  return "encrypted" in request.socket;
}

/**
 * The client's own connection is encrypted: here, or at the load balancer in front. A client that says so without being so gets
 * cookies that it does not send again, and so reads from the authority.
 */
export function isSecure(request: ClientRequest): boolean {
  if (cameOverTls(request)) return true;
  const said = request.headers["x-forwarded-proto"];
  return typeof said === "string" && said.split(",", 1)[0]?.trim().toLowerCase() === "https";
}
