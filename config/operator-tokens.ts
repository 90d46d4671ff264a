import { createHash, timingSafeEqual } from "node:crypto";
import { CrossfadeError } from "./errors.ts";

/** Who may do what on the operator API: each role may do what the ones before it may. */
export const API_ROLES = ["viewer", "operator", "approver"] as const;
export type ApiRole = (typeof API_ROLES)[number];

export interface ApiToken {
  readonly role: ApiRole;
  /** Of the token: the token itself is kept nowhere. */
  readonly digest: Buffer;
}

/** Reads `role:token,role:token`. Throws PLAN_INVALID without repeating a token. */
export function parseTokens(text: string | undefined): ApiToken[] {
  if (text === undefined || text.trim() === "") return [];
  return text.split(",").map((entry, index) => {
    const [role, ...rest] = entry.trim().split(":");
    const token = rest.join(":");
    if (isApiRole(role) && token.length >= 8) return { role, digest: digestOf(token) };
    throw new CrossfadeError(
      "PLAN_INVALID",
      `operate.tokens: entry ${index + 1} is not ROLE:TOKEN with one of ${API_ROLES.join(", ")} and 8 characters or more`,
    );
  });
}

/** The role a request's `authorization` header has; undefined: none. Compares all tokens, each in constant time. */
export function roleOf(
  tokens: readonly ApiToken[],
  authorization: string | undefined,
): ApiRole | undefined {
  const bearer = /^Bearer\s+(\S+)$/i.exec(authorization ?? "")?.[1];
  return bearer === undefined ? undefined : roleOfToken(tokens, bearer);
}

/** The role a token has; undefined: none. */
export function roleOfToken(tokens: readonly ApiToken[], token: string): ApiRole | undefined {
  const digest = digestOf(token);
  let found: ApiRole | undefined;
  for (const known of tokens) if (timingSafeEqual(known.digest, digest)) found = known.role;
  return found;
}

/** Whether `role` includes what `needed` may do. */
export function mayDo(role: ApiRole, needed: ApiRole): boolean {
  return API_ROLES.indexOf(role) >= API_ROLES.indexOf(needed);
}

function isApiRole(word: string | undefined): word is ApiRole {
  return (API_ROLES as readonly (string | undefined)[]).includes(word);
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
