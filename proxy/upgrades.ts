import http from "node:http";
import type { IncomingMessage } from "node:http";
import { hasBody } from "./request-body.ts";

/** About the connection between two neighbours, which ends at this sidecar: never asked of an app. */
const OF_THIS_HOP = /^(h2c|tls)(\/|$)/i;

/**
 * Whether a request for an upgrade becomes a tunnel. Any other is taken as if it had not asked (RFC 9110 §7.8 leaves that to the server):
 *
 * - for `h2c` or TLS. In a tunnel everything that follows, writes too, would pass by routes, holds and fences, and Java's
 *   client asks for h2c with whatever it sends first;
 * - with content, which the app may want to read before it answers;
 * - behind a request that is not answered yet: that answer would come in the middle of the tunnel.
 */
export function becomesTunnel(request: IncomingMessage): boolean {
  return protocolsFor(request) !== "" && !hasBody(request) && isOnlyOne(request);
}

/** The protocols to ask the app for. */
export function protocolsFor({ headers }: IncomingMessage): string {
  const named = (headers.upgrade ?? "").split(",").map((name) => name.trim());
  return named.filter((name) => name !== "" && !OF_THIS_HOP.test(name)).join(", ");
}

/** A connection serves one answer at a time, and says so when it is given another. */
function isOnlyOne(request: IncomingMessage): boolean {
  const response = new http.ServerResponse(request);
  try {
    response.assignSocket(request.socket);
  } catch {
    return false;
  }
  response.detachSocket(request.socket);
  return true;
}
