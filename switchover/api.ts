import fastify from "fastify";
import type { FastifyInstance, FastifyReply } from "fastify";
import { redact } from "../config/describe.ts";
import { CrossfadeError, messageOf } from "../config/errors.ts";
import type { ErrorCode } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { readCommand, readCommands } from "../store/control/commands.ts";
import { readEvents, readEventsAfter, readReceipts } from "../store/control/history.ts";
import type { Listener } from "../store/control/listen.ts";
import { readMigration } from "../store/control/migration.ts";
import type { ControlStore } from "../store/control/open.ts";
import { SERIES_RANGES, readSeries } from "../store/control/series.ts";
import type { SeriesRange } from "../store/control/series.ts";
import { readSidecars } from "../store/control/sidecars.ts";
import { activeDirection } from "./gate-facts.ts";
import { ApiAccess, isLoopback, roleFor } from "./api-access.ts";
import { commandDocument, runCommand, statusOf } from "./api-commands.ts";
import { streamEvents } from "./api-events.ts";
import { serveConsole } from "./console.ts";
import type { Engine } from "./engine.ts";
import { renderMetrics } from "./metrics.ts";
import { renderSidecarMetrics } from "./sidecar-metrics.ts";
import { openApiDocument } from "./openapi.ts";
import { REQUESTS } from "./requests.ts";
import type { RequestKind } from "./requests.ts";
import { sampleSeries } from "./series.ts";
import { readStatus } from "./status.ts";
import { parseTokens } from "../config/operator-tokens.ts";
import type { ApiToken } from "../config/operator-tokens.ts";

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
  const server = buildApi(options, tokens);
  try {
    const url = await server.listen({ host, port });
    const ending = new AbortController();
    const sampling = sampleSeries(options, ending.signal);
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
      {
        hint: "Stop that process, or name another address in the plan under operate.listen.",
        cause: error,
      },
    );
  }
}

/** The routes, without listening: tests inject requests. */
export function buildApi(options: ApiOptions, tokens: readonly ApiToken[]): FastifyInstance {
  const server = fastify({ logger: false, bodyLimit: 64 * 1024, forceCloseConnections: true });
  server.setErrorHandler((error, _, reply) => sendError(reply, error));
  server.setNotFoundHandler(({ method, url }, reply) =>
    reply.code(404).send({
      error: {
        code: "USAGE",
        message: `nothing answers ${method} ${url.split("?", 1)[0]}`,
        hint: "GET /v1/openapi.json lists what does.",
      },
    }),
  );
  const access = new ApiAccess(tokens, options.store, options.log);
  const viewer = { onRequest: access.allow("viewer") };
  const closing = new AbortController();
  const status = () => readStatus(options);
  const { store, engine, plan } = options;
  const metrics = async () => {
    const [own, sidecars] = await Promise.all([
      status().then(renderMetrics),
      // Before the control store is there, no sidecar is.
      readSidecars(store).catch(() => []),
    ]);
    return own + renderSidecarMetrics(sidecars);
  };

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
  type TimelineQuery = { Querystring: { after?: string; limit?: string } };
  server.get<TimelineQuery>("/v1/timeline", viewer, async (request, reply) => {
    const { after, limit } = request.query;
    if (request.headers.accept?.includes("text/event-stream") === true)
      return streamEvents({ ...options, status: undefined }, request, reply, closing.signal);
    const most = wholeNumber("limit", limit ?? "1000", 1, 10_000);
    return after === undefined
      ? readEvents(store, { limit: most })
      : readEventsAfter(store, wholeNumber("after", after, 0), most);
  });
  server.get<TimelineQuery>("/v1/events", viewer, async (request, reply) =>
    streamEvents({ ...options, status }, request, reply, closing.signal),
  );
  server.get("/v1/commands", viewer, async () => (await readCommands(store)).map(commandDocument));
  server.get("/v1/receipts", viewer, () => readReceipts(store));
  server.get("/v1/quarantine", viewer, async () => {
    const migration = await readMigration(store);
    // Nothing is installed in these phases that could hold any.
    if (migration.phase === "off" || migration.phase === "done") return [];
    return engine.listQuarantine(activeDirection(migration));
  });
  server.get<{ Params: { id: string } }>("/v1/commands/:id", viewer, async (request, reply) => {
    const command = await readCommand(store, wholeNumber("id", request.params.id, 1));
    return command === undefined
      ? reply.code(404).send({ error: { code: "USAGE", message: "no such command" } })
      : commandDocument(command);
  });
  server.get("/metrics", viewer, async (_, reply) => {
    await reply.type("text/plain; version=0.0.4").send(await metrics());
  });
  server.get("/v1/session", viewer, (request) => ({
    plan: plan.name,
    tokens: tokens.length > 0,
    role: access.caller(request).role,
    name: access.caller(request).name ?? null,
  }));
  server.get<{ Querystring: { range?: string } }>("/v1/series", viewer, ({ query }) =>
    readSeries(store, seriesRange(query.range ?? "recent")),
  );
  serveConsole(server);
  for (const kind of Object.keys(REQUESTS) as RequestKind[]) {
    if (kind === "clean") continue; // It ends with the control store itself: the CLI only.
    server.post(`/v1/${kind}`, { onRequest: access.allow(roleFor(kind)) }, (request, reply) =>
      runCommand(options, kind, access.caller(request), request, reply),
    );
  }
  server.addHook("preClose", async () => closing.abort());
  server.addHook("onClose", () => options.log.debug({ plan: plan.name }, "operator API closed"));
  return server;
}

function sendError(reply: FastifyReply, error: unknown): FastifyReply {
  if (error instanceof CrossfadeError) {
    const { code, hint } = error;
    const said = { code, message: redact(error.message), ...(hint === undefined ? {} : { hint }) };
    return reply.code(statusOf(code)).send({ error: said });
  }
  // What is no error of ours comes from reading the request, or from nobody knows where.
  const status = (error as { statusCode?: number }).statusCode ?? 500;
  const code: ErrorCode = status < 500 ? "USAGE" : "FAILED";
  return reply.code(status).send({ error: { code, message: redact(messageOf(error)) } });
}

function wholeNumber(
  name: string,
  text: string,
  min: number,
  max = Number.MAX_SAFE_INTEGER,
): number {
  const number = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= min && number <= max) return number;
  throw new CrossfadeError("USAGE", `${name}: expected a whole number from ${min} to ${max}`);
}

function seriesRange(text: string): SeriesRange {
  const range = SERIES_RANGES.find((known) => known === text);
  if (range !== undefined) return range;
  throw new CrossfadeError("USAGE", `range: "${text}" is none of ${SERIES_RANGES.join(", ")}`);
}
