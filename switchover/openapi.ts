import { z } from "zod";
import { roleFor } from "./api-access.ts";
import { REQUESTS } from "./requests.ts";
import type { RequestKind } from "./requests.ts";
import { SERIES_RANGES } from "../store/control/series.ts";

/** What each command does, for the document. */
const SUMMARIES: Readonly<Record<Exclude<RequestKind, "clean">, string>> = {
  advance: "Go to the next phase, or step by step to a later one, through the gates",
  rollback: "Go back to an earlier phase",
  drill: "Rehearse a flip under live traffic; it ends where it began",
  verify: "Compare every mapped row now",
  "quarantine-retry": "Sync quarantined keys again",
  "quarantine-accept": "Accept, as a named person, that a key stays behind",
  approve: "Approve a phase",
  pause: "Pause backfill, mirror or both",
  resume: "Resume them; failed chunks are tried again",
  maintenance: "Answer writes with 503 and a message until it is switched off; reads go on",
  tune: "Change a throttle while it runs; null takes it back",
};

/** Answered without a token: what says whether the process lives, and this document. */
const OPEN = ["/v1/openapi.json", "/healthz", "/readyz"];

const GETS: Readonly<Record<string, string>> = {
  "/v1/openapi.json": "This document",
  "/v1/status": "Where the migration stands",
  "/v1/timeline":
    "Events, oldest first: the last `limit`, or those after the id `after`; with `accept: text/event-stream` as they happen",
  "/v1/events": "Server-sent events: `timeline` (an event) and `status` (whenever it is another)",
  "/v1/commands": "The last commands, newest first",
  "/v1/receipts": "The last flips, drills and rollbacks, newest first",
  "/v1/quarantine": "Keys left behind",
  "/v1/commands/{id}": "A command and how it ended",
  "/v1/session": "Which role the token has",
  "/v1/series": "What the console's charts show; `range` is recent or all",
  "/metrics": "Prometheus metrics",
  "/healthz": "The process answers",
  "/readyz": "The control store answers",
};

/** OpenAPI 3.1, its request bodies made from the schemas that check them. */
export function openApiDocument(): object {
  const gets = Object.entries(GETS).map(([path, summary]) => [
    path,
    {
      get: {
        summary,
        ...(OPEN.includes(path) ? { security: [] } : { description: "Role: viewer" }),
        ...parameters(path),
        responses: OPEN.includes(path) ? pick("200", "503") : READ_RESPONSES(path),
      },
    },
  ]);
  const posts = Object.entries(SUMMARIES).map(([kind, summary]) => [
    `/v1/${kind}`,
    {
      post: {
        summary,
        description: `Role: ${roleFor(kind as RequestKind)}`,
        parameters: COMMAND_HEADERS,
        requestBody: body(kind as RequestKind),
        responses: RESPONSES,
      },
    },
  ]);
  return {
    openapi: "3.1.0",
    info: { title: "Crossfade operator API", version: "1" },
    components: { securitySchemes: { bearer: { type: "http", scheme: "bearer" } } },
    security: [{ bearer: [] }],
    paths: Object.fromEntries([...gets, ...posts]) as object,
  };
}

const COMMAND_HEADERS = [
  {
    name: "idempotency-key",
    in: "header",
    description:
      "The same key again asks for nothing anew: the answer is that of the first request.",
    schema: { type: "string", maxLength: 200 },
  },
  {
    name: "prefer",
    in: "header",
    description: "`respond-async`: answer 202 at once, and do not wait for the command.",
    schema: { type: "string" },
  },
] as const;

const RESPONSES = {
  "200": { description: "Done" },
  "202": { description: "Still running: ask for /v1/commands/{id}" },
  "400": { description: "The request does not hold" },
  "401": { description: "No token, or one that is not known or has expired" },
  "403": {
    description: "The token's role may not do this; without tokens, not from this machine or page",
  },
  "409": { description: "A gate or a guard says no, or a flip was undone; the body says why" },
  "404": { description: "There is no such command" },
  "429": { description: "Too many requests from this address" },
  "500": { description: "It failed; the body says why" },
  "503": { description: "A database is away" },
} as const;

function pick(...codes: readonly (keyof typeof RESPONSES)[]): object {
  return Object.fromEntries(codes.map((code) => [code, RESPONSES[code]]));
}

const READ_RESPONSES = (path: string): object =>
  pick(
    "200",
    ...(path in PARAMETERS ? (["400"] as const) : []),
    ...(path.includes("{") ? (["404"] as const) : []),
    "401",
    "403",
    "429",
    "500",
    "503",
  );

function body(kind: RequestKind): object {
  return {
    content: { "application/json": { schema: z.toJSONSchema(REQUESTS[kind], { io: "input" }) } },
  };
}

type Parameter = readonly [name: string, where: "path" | "query", schema: object];

const PARAMETERS: Readonly<Record<string, readonly Parameter[]>> = {
  "/v1/commands/{id}": [["id", "path", { type: "integer", minimum: 1 }]],
  "/v1/timeline": [
    ["after", "query", { type: "integer", minimum: 0 }],
    ["limit", "query", { type: "integer", minimum: 1, maximum: 10_000, default: 1_000 }],
  ],
  "/v1/events": [["after", "query", { type: "integer", minimum: 0 }]],
  "/v1/series": [["range", "query", { enum: SERIES_RANGES }]],
};

function parameters(path: string): object {
  const found = PARAMETERS[path];
  if (found === undefined) return {};
  return {
    parameters: found.map(([name, where, schema]) => ({
      name,
      in: where,
      required: where === "path",
      schema,
    })),
  };
}
