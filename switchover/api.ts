import fastify from "fastify";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { CrossfadeError, ERROR_CODES, EXIT, messageOf } from "../config/errors.ts";
import type { ErrorCode } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { enqueueCommand, readCommand, waitForCommand } from "../store/control/commands.ts";
import type { Command } from "../store/control/commands.ts";
import { readEvents, readReceipts } from "../store/control/history.ts";
import type { Listener } from "../store/control/listen.ts";
import { readMigration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { activeDirection } from "./gates.ts";
import { serveConsole } from "./console.ts";
import type { Engine } from "./engine.ts";
import { renderMetrics } from "./metrics.ts";
import { openApiDocument } from "./openapi.ts";
import { REQUESTS, parseArgs } from "./requests.ts";
import type { RequestKind } from "./requests.ts";
import { SERIES_RANGES, Series, sampleSeries } from "./series.ts";
import type { SeriesRange } from "./series.ts";
import { readStatus } from "./status.ts";
import { mayDo, parseTokens, roleOf } from "../config/operator-tokens.ts";
import type { ApiRole, ApiToken } from "../config/operator-tokens.ts";

export interface ApiOptions {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly listener: Listener;
  readonly engine: Engine;
  readonly log: Log;
}

export interface Api {
  readonly url: string;
  close(): Promise<void>;
}

/** How long a request waits for its command; after that it gets 202 and asks for `/v1/commands/ID`. */
const WAIT_MS = 60_000;

/** Starts the operator API. Throws PORT_IN_USE, or PLAN_INVALID for an open address without tokens. */
export async function startApi(options: ApiOptions): Promise<Api> {
  const { host, port } = options.plan.operate.listen;
  const tokens = parseTokens(options.plan.operate.tokens);
  if (tokens.length === 0 && !isLoopback(host)) {
    throw new CrossfadeError(
      "PLAN_INVALID",
      `operate.listen: ${host} is reachable from outside, and operate.tokens is empty`,
      {
        hint: "Set operate.tokens (role:token,…), or listen on 127.0.0.1.",
      },
    );
  }
  const series = new Series();
  const server = buildApi(options, tokens, series);
  try {
    const url = await server.listen({ host, port });
    const ending = new AbortController();
    const sampling = sampleSeries(options, series, ending.signal);
    const close = async () => {
      ending.abort();
      await Promise.all([sampling, server.close()]);
    };
    return { url, close };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new CrossfadeError(
      "PORT_IN_USE",
      `operate.listen: ${host}:${port} is taken by another process`,
      { cause: error },
    );
  }
}

/** The routes, without listening: tests inject requests. */
export function buildApi(
  options: ApiOptions,
  tokens: readonly ApiToken[],
  series = new Series(),
): FastifyInstance {
  const server = fastify({ logger: false, bodyLimit: 64 * 1024, forceCloseConnections: true });
  server.setErrorHandler((error, _, reply) => sendError(reply, error));
  const allow = (role: ApiRole) => (request: FastifyRequest, reply: FastifyReply) =>
    authorize(tokens, role, request, reply);
  const viewer = { onRequest: allow("viewer") };
  const status = () => readStatus(options);
  const { store, engine, plan } = options;

  server.get("/healthz", () => ({ ok: true }));
  server.get("/readyz", async (_, reply) => {
    const ready = await readMigration(store).then(
      () => true,
      () => false,
    );
    return reply.code(ready ? 200 : 503).send({ ok: ready });
  });
  server.get("/v1/openapi.json", () => openApiDocument());
  server.get("/v1/status", viewer, status);
  server.get("/v1/timeline", viewer, () => readEvents(store));
  server.get("/v1/receipts", viewer, () => readReceipts(store));
  server.get("/v1/quarantine", viewer, async () =>
    engine.listQuarantine(activeDirection(await readMigration(store))),
  );
  server.get<{ Params: { id: string } }>("/v1/commands/:id", viewer, async (request, reply) => {
    const command = await readCommand(store, Number(request.params.id));
    return command === undefined
      ? reply.code(404).send({ error: { code: "USAGE", message: "no such command" } })
      : commandDocument(command);
  });
  server.get("/metrics", viewer, async (_, reply) => {
    await reply.type("text/plain; version=0.0.4").send(await renderMetrics(await status()));
  });
  server.get("/v1/session", viewer, (request) => ({
    plan: plan.name,
    tokens: tokens.length > 0,
    role: tokens.length === 0 ? "approver" : roleOf(tokens, request.headers.authorization),
  }));
  server.get<{ Querystring: { range?: string } }>("/v1/series", viewer, ({ query }) =>
    series.read(seriesRange(query.range ?? "recent")),
  );
  serveConsole(server);
  for (const kind of Object.keys(REQUESTS) as RequestKind[]) {
    if (kind === "clean") continue; // It ends with the control store itself: the CLI only.
    server.post(`/v1/${kind}`, { onRequest: allow(roleFor(kind)) }, (request, reply) =>
      runCommand(options, kind, request, reply),
    );
  }
  server.addHook("onClose", () => options.log.debug({ plan: plan.name }, "operator API closed"));
  return server;
}

/** Approving and accepting a loss are for approvers; everything else that changes something for operators. */
export function roleFor(kind: RequestKind): ApiRole {
  return kind === "approve" || kind === "quarantine-accept" ? "approver" : "operator";
}

async function authorize(
  tokens: readonly ApiToken[],
  needed: ApiRole,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  // Without tokens the API listens on loopback only. A browser sends `origin` with what another site makes it post, and a
  // site that points its own name at this machine cannot change the `host` that the browser sends.
  if (tokens.length === 0) {
    const { origin, host } = request.headers;
    if (!isLoopback(hostnameOf(host)))
      return deny(reply, 403, `without operate.tokens only loopback is answered, not ${host}`);
    if (request.method === "POST" && origin !== undefined && origin !== `http://${host}`)
      await deny(reply, 403, "requests of other web pages need a token");
    return;
  }
  const role = roleOf(tokens, request.headers.authorization);
  if (role === undefined) return deny(reply, 401, "a bearer token is needed");
  if (!mayDo(role, needed)) return deny(reply, 403, `this needs the role ${needed}`);
}

async function deny(reply: FastifyReply, status: 401 | 403, message: string): Promise<void> {
  if (status === 401) reply.header("www-authenticate", "Bearer");
  await reply.code(status).send({ error: { code: "REFUSED", message } });
}

async function runCommand(
  options: ApiOptions,
  kind: RequestKind,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const { store, listener } = options;
  const args = (request.body ?? {}) as Record<string, unknown>;
  parseArgs(kind, args);
  const id = await enqueueCommand(store, { kind, args, by: "api" });
  const deadline = AbortSignal.timeout(WAIT_MS);
  try {
    const command = await waitForCommand(store, listener, id, deadline);
    if (command.error !== undefined) reply.code(statusOf(command.error.code));
    return commandDocument(command);
  } catch (error) {
    if (!deadline.aborted) throw error;
    return reply.code(202).send({ id, state: "running" });
  }
}

function commandDocument({ id, kind, state, result, error }: Command): object {
  return { id, kind, state, ...(error === undefined ? { result } : { error }) };
}

function sendError(reply: FastifyReply, error: unknown): FastifyReply {
  const code: ErrorCode = error instanceof CrossfadeError ? error.code : "FAILED";
  const clientError = (error as { statusCode?: number }).statusCode;
  const status = error instanceof CrossfadeError ? statusOf(code) : (clientError ?? 500);
  return reply.code(status).send({ error: { code, message: messageOf(error) } });
}

/** 409: a gate said no; 400: the request does not hold; 503: a database is away. */
function statusOf(code: ErrorCode): number {
  if (code === "DATABASE_UNREACHABLE") return 503;
  const { exit } = ERROR_CODES[code];
  return exit === EXIT.refused ? 409 : exit === EXIT.usage ? 400 : 500;
}

function seriesRange(text: string): SeriesRange {
  const range = SERIES_RANGES.find((known) => known === text);
  if (range !== undefined) return range;
  throw new CrossfadeError("USAGE", `range: "${text}" is none of ${SERIES_RANGES.join(", ")}`);
}

/** Of a `host` header: without port and brackets. */
function hostnameOf(host: string | undefined): string {
  return (host ?? "").replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d+){3}$/.test(host);
}
