import type { FastifyReply, FastifyRequest } from "fastify";
import { CrossfadeError, ERROR_CODES, EXIT } from "../config/errors.ts";
import type { ErrorCode } from "../config/errors.ts";
import { enqueueCommand, enqueueOnce, waitForCommand } from "../store/control/commands.ts";
import type { Command } from "../store/control/commands.ts";
import type { Listener } from "../store/control/listen.ts";
import type { ControlStore } from "../store/control/open.ts";
import type { Caller } from "./api-access.ts";
import { parseArgs } from "./requests.ts";
import type { RequestKind } from "./requests.ts";

/** Commands asked for over HTTP: a row for the controller that leads, and its outcome as the answer. */

/** How long a request waits for its command; after that it gets 202 and asks for `/v1/commands/ID`. */
const WAIT_MS = 60_000;
/** What an `idempotency-key` may be: visible ASCII. */
const KEY = /^[\x21-\x7e]{1,200}$/;

/** Queues the command (once for an `idempotency-key`) and waits for it, unless `prefer: respond-async` says not to. */
export async function runCommand(
  { store, listener }: { readonly store: ControlStore; readonly listener: Listener },
  kind: RequestKind,
  caller: Caller,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const args = argsOf(kind, request.body, caller);
  const id = await enqueue(store, kind, args, caller, request.headers["idempotency-key"]);
  reply.header("location", `/v1/commands/${id}`);
  if (/\brespond-async\b/.test(String(request.headers.prefer)))
    return reply.code(202).send({ id, kind, state: "queued" });
  const deadline = AbortSignal.timeout(WAIT_MS);
  try {
    const command = await waitForCommand(store, listener, id, deadline);
    if (command.error !== undefined) reply.code(statusOf(command.error.code));
    return commandDocument(command);
  } catch (error) {
    if (!deadline.aborted) throw error;
    return reply.code(202).send({ id, kind, state: "running" });
  }
}

/** A person whose token has a name approves under no other: else one token could speak for two people. */
function argsOf(kind: RequestKind, body: unknown, { name }: Caller): Record<string, unknown> {
  const given = (body ?? {}) as Record<string, unknown>;
  const personal = kind === "approve" || kind === "quarantine-accept";
  const args = personal && name !== undefined ? { as: name, ...given } : given;
  parseArgs(kind, args);
  if (personal && name !== undefined && args.as !== name)
    throw new CrossfadeError(
      "REFUSED",
      `this token is ${name}'s: it cannot speak for somebody else`,
    );
  return args;
}

async function enqueue(
  store: ControlStore,
  kind: RequestKind,
  args: Record<string, unknown>,
  { by, name, role }: Caller,
  key: string | string[] | undefined,
): Promise<number> {
  if (key === undefined) return enqueueCommand(store, { kind, args, by });
  if (typeof key !== "string" || !KEY.test(key)) {
    const message = "idempotency-key: expected 1 to 200 visible characters, such as a UUID";
    throw new CrossfadeError("USAGE", message);
  }
  // Of one caller: nobody meets somebody else's command by the same key.
  const id = await enqueueOnce(store, { kind, args, by, key: `${name ?? role}:${key}` });
  if (id !== undefined) return id;
  throw new CrossfadeError("REFUSED", "this idempotency-key was used for another request");
}

/** A command as the API shows it. */
export function commandDocument({ id, kind, by, state, result, error, created }: Command): object {
  return { id, kind, by, state, created, ...(error === undefined ? { result } : { error }) };
}

/** What stands in the way, rather than that something broke: nothing was changed, and it may be asked again. */
const CONFLICTS: ReadonlySet<ErrorCode> = new Set(["STALE", "SHAPE_CHANGED", "FLIP_UNDONE"]);

/** 409: a gate said no, or a flip was undone; 400: the request does not hold; 503: a database is away. */
export function statusOf(code: ErrorCode): number {
  if (code === "DATABASE_UNREACHABLE") return 503;
  if (CONFLICTS.has(code)) return 409;
  const { exit } = ERROR_CODES[code];
  return exit === EXIT.refused ? 409 : exit === EXIT.usage ? 400 : 500;
}
