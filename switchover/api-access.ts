import type { FastifyReply, FastifyRequest } from "fastify";
import type { Log } from "../config/lifecycle.ts";
import { isExpired, mayDo, tokenOf } from "../config/operator-tokens.ts";
import type { ApiRole, ApiToken } from "../config/operator-tokens.ts";
import { addEvent } from "../store/control/history.ts";
import type { ControlStore } from "../store/control/open.ts";
import type { RequestKind } from "./requests.ts";

/** Who may do what on the operator API, how often, and the record of everybody who was turned away. */

export interface Caller {
  /** Stands in the timeline: `api:NAME@ADDRESS`. */
  readonly by: string;
  readonly role: ApiRole;
  /** Of a token with a name: approvals are given under no other. */
  readonly name: string | undefined;
}

type Denial = { readonly status: 401 | 403 | 429; readonly message: string };

/** Per address: a person, a console and a scraper together stay far below; somebody who tries tokens does not. */
const BURST = 100;
const PER_SECOND = 20;
/** A try with a token that is not known costs as much as this many requests. */
const WRONG_TOKEN_COSTS = 10;
const MAX_ADDRESSES = 10_000;
/** The same denial again within this time is counted, not recorded: nobody fills the timeline from outside. */
const RECORD_EVERY_MS = 10_000;

/** The door of the operator API. */
export class ApiAccess {
  readonly #tokens: readonly ApiToken[];
  readonly #store: ControlStore;
  readonly #log: Log;
  readonly #buckets = new Map<string, { left: number; at: number }>();
  readonly #denied = new Map<string, { at: number; more: number }>();

  constructor(tokens: readonly ApiToken[], store: ControlStore, log: Log) {
    this.#tokens = tokens;
    this.#store = store;
    this.#log = log;
  }

  /** A hook that lets only `role` and above pass, and records whom it turns away. */
  allow(role: ApiRole): (request: FastifyRequest, reply: FastifyReply) => Promise<void> {
    return async (request, reply) => {
      const denial = this.#denial(request, role);
      if (denial === undefined) return;
      await this.#record(request, denial);
      if (denial.status === 401) reply.header("www-authenticate", "Bearer");
      if (denial.status === 429) reply.header("retry-after", "1");
      await reply.code(denial.status).send({ error: { code: "REFUSED", message: denial.message } });
    };
  }

  /** Who asks; only after `allow` has let the request pass. */
  caller(request: FastifyRequest): Caller {
    const token = tokenOf(this.#tokens, request.headers.authorization);
    return {
      by: whoOf(token?.name, request.ip),
      // Without tokens only this machine is answered.
      role: this.#tokens.length === 0 ? "approver" : (token?.role ?? "viewer"),
      name: token?.name,
    };
  }

  #denial(request: FastifyRequest, needed: ApiRole): Denial | undefined {
    const token = tokenOf(this.#tokens, request.headers.authorization);
    const known = this.#tokens.length === 0 || token !== undefined;
    if (!this.#take(request.ip, known ? 1 : WRONG_TOKEN_COSTS))
      return { status: 429, message: "too many requests; try again in a second" };
    if (this.#tokens.length === 0) return denialWithoutTokens(request);
    if (token === undefined) return { status: 401, message: "a bearer token is needed" };
    if (isExpired(token)) return { status: 401, message: "the token has expired" };
    if (mayDo(token.role, needed)) return undefined;
    return { status: 403, message: `this needs the role ${needed}` };
  }

  #take(address: string, cost: number): boolean {
    const now = performance.now();
    const bucket = this.#buckets.get(address) ?? { left: BURST, at: now };
    const filled = Math.min(BURST, bucket.left + ((now - bucket.at) / 1000) * PER_SECOND);
    const allowed = filled >= 1;
    // The oldest goes: who was quiet for longest.
    this.#buckets.delete(address);
    this.#buckets.set(address, { left: allowed ? filled - cost : filled, at: now });
    if (this.#buckets.size > MAX_ADDRESSES) dropFirst(this.#buckets);
    return allowed;
  }

  async #record(request: FastifyRequest, { status, message }: Denial): Promise<void> {
    const path = request.routeOptions.url ?? "";
    const key = `${request.ip} ${status} ${request.method} ${path}`;
    const now = performance.now();
    const before = this.#denied.get(key);
    if (before !== undefined && now - before.at < RECORD_EVERY_MS) {
      before.more += 1;
      return;
    }
    this.#denied.delete(key);
    this.#denied.set(key, { at: now, more: 0 });
    if (this.#denied.size > MAX_ADDRESSES) dropFirst(this.#denied);
    const by = whoOf(tokenOf(this.#tokens, request.headers.authorization)?.name, request.ip);
    const more = before?.more ?? 0;
    const detail = {
      method: request.method,
      path,
      status,
      why: message,
      ...(more > 0 ? { more } : {}),
    };
    this.#log.warn({ by, ...detail }, `operator API: ${message}`);
    // A store that is away takes no record; the log has it.
    await addEvent(this.#store, { kind: "denied", by, detail }).catch(() => {});
  }
}

/**
 * Without tokens the API listens on loopback only. A browser sends `origin` with what another site makes it post, and a
 * site that points its own name at this machine cannot change the `host` that the browser sends.
 */
function denialWithoutTokens({ headers, method }: FastifyRequest): Denial | undefined {
  const { origin, host } = headers;
  if (!isLoopback(hostnameOf(host)))
    return {
      status: 403,
      message: `without operate.tokens only loopback is answered, not ${host}`,
    };
  if (method === "POST" && origin !== undefined && origin !== `http://${host}`)
    return { status: 403, message: "requests of other web pages need a token" };
  return undefined;
}

/** Whether a host name means this machine alone. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d+){3}$/.test(host);
}

/** Of a `host` header: without port and brackets. */
function hostnameOf(host: string | undefined): string {
  return (host ?? "").replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
}

function whoOf(name: string | undefined, address: string): string {
  return `api${name === undefined ? "" : `:${name}`}@${address}`;
}

function dropFirst(map: Map<string, unknown>): void {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}

/** Approving and accepting a loss are for approvers; everything else that changes something for operators. */
export function roleFor(kind: RequestKind): ApiRole {
  return kind === "approve" || kind === "quarantine-accept" ? "approver" : "operator";
}
