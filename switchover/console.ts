import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { consoleFiles } from "./console-files.ts";
import type { ConsoleFile } from "./console-files.ts";

/**
 * Nothing but our own files, nothing inline, no frames. Everything shown comes from the API as JSON and becomes text nodes:
 * a value of the app's data that looks like markup stays text (docs/decisions/console.md).
 */
export const CONSOLE_CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

const HEADERS = {
  "content-security-policy": CONSOLE_CSP,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  vary: "accept-encoding",
} as const;

/** Serves the console. It holds nothing of the migration, so it needs no token: what it asks for does. */
export function serveConsole(server: FastifyInstance): void {
  server.get("/", async (request, reply) => {
    const page = (await consoleFiles()).get("/");
    return send(request, reply.header("cache-control", "no-cache"), page);
  });
  server.get("/console/*", async (request, reply) => {
    const path = new URL(request.url, "http://console").pathname;
    const file = (await consoleFiles()).get(path);
    // Named by content: what has this name never changes.
    return send(
      request,
      reply.header("cache-control", "public, max-age=31536000, immutable"),
      file,
    );
  });
}

function send(
  request: FastifyRequest,
  reply: FastifyReply,
  file: ConsoleFile | undefined,
): FastifyReply {
  if (file === undefined) {
    const error = { code: "USAGE", message: "no such file of the console" };
    return reply.header("cache-control", "no-store").code(404).send({ error });
  }
  void reply.headers(HEADERS).type(file.type);
  const gzip = /\bgzip\b/.test(request.headers["accept-encoding"] ?? "");
  return gzip ? reply.header("content-encoding", "gzip").send(file.gzipped) : reply.send(file.body);
}
