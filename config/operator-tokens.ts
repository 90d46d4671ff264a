import { createHash, timingSafeEqual } from "node:crypto";
import { CrossfadeError } from "./errors.ts";

/** Who may do what on the operator API: each role may do what the ones before it may. */
export const API_ROLES = ["viewer", "operator", "approver"] as const;
export type ApiRole = (typeof API_ROLES)[number];

export interface ApiToken {
  readonly role: ApiRole;
  /** Of the token: the token itself is kept nowhere. */
  readonly digest: Buffer;
  /** Whose it is: stands in the timeline, and approvals are given under it. */
  readonly name?: string;
  /** ms since 1970; from then on it is refused. */
  readonly expires?: number;
}

const FORM = `ROLE:TOKEN, ROLE:TOKEN;name=NAME or ROLE:TOKEN;expires=2030-12-31T18:00:00Z, with one of ${API_ROLES.join(", ")} and 8 characters or more`;

/** Reads `role:token,role:token;name=ada;expires=2030-12-31`. Throws PLAN_INVALID without repeating a token. */
export function parseTokens(text: string | undefined): ApiToken[] {
  if (text === undefined || text.trim() === "") return [];
  return text.split(",").map((entry, index) => {
    const token = parseToken(entry.trim());
    if (token !== undefined) return token;
    throw new CrossfadeError("PLAN_INVALID", `operate.tokens: entry ${index + 1} is not ${FORM}`);
  });
}

function parseToken(entry: string): ApiToken | undefined {
  const [head = "", ...settings] = entry.split(";");
  const [role, ...rest] = head.split(":");
  const token = rest.join(":");
  if (!isApiRole(role) || token.length < 8) return undefined;
  const given: { name?: string; expires?: number } = {};
  for (const setting of settings) {
    const [key, value = ""] = setting.trim().split("=");
    if (key === "name" && /^[\w.@ -]{1,60}$/.test(value)) given.name = value;
    else if (key === "expires" && !Number.isNaN(Date.parse(value)))
      given.expires = Date.parse(value);
    else return undefined;
  }
  return { role, digest: digestOf(token), ...given };
}

/** The token of a request's `authorization` header, expired or not; undefined: none that is known. */
export function tokenOf(
  tokens: readonly ApiToken[],
  authorization: string | undefined,
): ApiToken | undefined {
  const bearer = /^Bearer\s+(\S+)$/i.exec(authorization ?? "")?.[1];
  return bearer === undefined ? undefined : findToken(tokens, bearer);
}

/** Whether a token does not hold any more. */
export function isExpired(token: ApiToken, now = Date.now()): boolean {
  return token.expires !== undefined && now >= token.expires;
}

/** The role a request's `authorization` header has; undefined: none. */
export function roleOf(
  tokens: readonly ApiToken[],
  authorization: string | undefined,
): ApiRole | undefined {
  return roleIn(tokenOf(tokens, authorization));
}

/** The role a token has; undefined: none. */
export function roleOfToken(tokens: readonly ApiToken[], token: string): ApiRole | undefined {
  return roleIn(findToken(tokens, token));
}

/** Whether `role` includes what `needed` may do. */
export function mayDo(role: ApiRole, needed: ApiRole): boolean {
  return API_ROLES.indexOf(role) >= API_ROLES.indexOf(needed);
}

/** Compares all tokens, each in constant time. */
function findToken(tokens: readonly ApiToken[], token: string): ApiToken | undefined {
  const digest = digestOf(token);
  let found: ApiToken | undefined;
  for (const known of tokens) if (timingSafeEqual(known.digest, digest)) found = known;
  return found;
}

function roleIn(token: ApiToken | undefined): ApiRole | undefined {
  return token === undefined || isExpired(token) ? undefined : token.role;
}

function isApiRole(word: string | undefined): word is ApiRole {
  return (API_ROLES as readonly (string | undefined)[]).includes(word);
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
