import { createHmac, hash, timingSafeEqual } from "node:crypto";
import type { Side } from "../config/words.ts";
import type { FenceView } from "./fences.ts";
import type { Standing } from "./route.ts";

/** What a client carries from one sidecar to the next. */
export interface CarriedToken {
  readonly side: Side;
  readonly epoch: number;
  /** undefined: open. What the client has seen is covered by no fence yet. */
  readonly fence: bigint | undefined;
}

export interface CausalCookie extends CarriedToken {
  readonly name: string;
}

const ATTRIBUTES = "; Path=/; HttpOnly; SameSite=Lax";

/**
 * Causal tokens in signed cookies. The key comes from the migration's salt, which every sidecar has; so does the cookies'
 * prefix: two migrations behind one host name leave each other's alone.
 *
 * Each answer that sets a token gives it a name of its own and expires those that its request carried and the token covers.
 * With one name, two answers to one client that overtake each other would leave the older token; like this both stay, and the
 * next answer tidies up.
 */
export class CausalCookies {
  readonly #salt: () => string;
  #keyOf = "";
  #key: Buffer = Buffer.alloc(0);
  #prefix = "";

  constructor(salt: () => string) {
    this.#salt = salt;
  }

  /** What names of these cookies begin with. */
  get prefix(): string {
    this.#derive();
    return this.#prefix;
  }

  /** The valid ones of a `cookie` field. */
  of(header: string | undefined): CausalCookie[] {
    if (header === undefined || !header.includes(this.prefix)) return [];
    return header.split(";").flatMap((pair) => this.#read(pair.trim()) ?? []);
  }

  /** Header fields that give a client `token`, and take from it what `token` covers. */
  setting(token: CarriedToken, carried: readonly CausalCookie[]): string[] {
    const name = `${this.prefix}${crypto.randomUUID().slice(0, 8)}`;
    const content = `${token.epoch}.${token.fence ?? "open"}.${token.side}`;
    const cookie = `${name}=${content}.${this.#sign(name, content)}${ATTRIBUTES}`;
    return ["set-cookie", cookie, ...this.expiring(carried.filter((one) => covers(token, one)))];
  }

  expiring(cookies: readonly CausalCookie[]): string[] {
    return cookies.flatMap(({ name }) => ["set-cookie", `${name}=; Max-Age=0${ATTRIBUTES}`]);
  }

  #read(pair: string): CausalCookie | undefined {
    if (!pair.startsWith(this.#prefix)) return undefined;
    const match = /^([\w-]+)=((\d{1,9})\.(\d{1,19}|open)\.(old|new))\.([\w-]{22})$/.exec(pair);
    if (match === null) return undefined;
    const [, name = "", content = "", epoch, fence = "", side, signature = ""] = match;
    const expected = this.#sign(name, content);
    if (!timingSafeEqual(Buffer.from(signature), Buffer.from(expected))) return undefined;
    return {
      name,
      side: side as Side,
      epoch: Number(epoch),
      fence: fence === "open" ? undefined : BigInt(fence),
    };
  }

  #sign(name: string, content: string): string {
    return createHmac("sha256", this.#key)
      .update(`${name}=${content}`)
      .digest("base64url")
      .slice(0, 22);
  }

  #derive(): void {
    const salt = this.#salt();
    if (salt === this.#keyOf) return;
    this.#keyOf = salt;
    this.#key = createHmac("sha256", salt).update("crossfade causal cookie").digest();
    this.#prefix = `crossfade_${hash("sha256", this.#key, "hex").slice(0, 6)}_`;
  }
}

/** The same header fields for a client whose connection is encrypted: it gives its cookies to no other. */
export function securely(fields: readonly string[]): string[] {
  return fields.map((field, index) => (index % 2 === 0 ? field : `${field}; Secure`));
}

/**
 * Where a client stands by what it carries: an older epoch has passed, a newer one follows the token's side. Nothing carried
 * is no promise: whatever the client did elsewhere, it binds it.
 */
export function standingOf(carried: readonly CarriedToken[], view: FenceView): Standing {
  const newest = carried.reduce((epoch, token) => Math.max(epoch, token.epoch), 0);
  const newer = carried.find((token) => token.epoch === newest && newest > view.epoch);
  if (newer !== undefined) return { newer: newer.side };
  const bound = carried.some((token) => !hasPassed(token, view));
  return bound || carried.length === 0 ? "unpassed" : "passed";
}

export function hasPassed(
  { epoch, fence }: CarriedToken,
  { epoch: now, passed }: FenceView,
): boolean {
  // Whoever left it open may have been cut off, and have answered after an epoch that it did not know to be over.
  if (fence === undefined) return false;
  if (epoch < Math.max(now, passed.epoch)) return true;
  if (epoch > now) return false;
  return fence === 0n || (passed.epoch === epoch && fence <= passed.fence);
}

/** Whether whoever holds `token` needs `other` no more: `token` was made after an answer to a request that carried `other`. */
export function covers(token: CarriedToken, other: CarriedToken): boolean {
  if (token.epoch !== other.epoch) return other.epoch < token.epoch;
  if (token.fence === undefined || other.fence === 0n) return true;
  return token.fence > 0n && (other.fence ?? 0n) <= token.fence;
}
