import { hash } from "node:crypto";
import type { ClientSource } from "../config/plan-types.ts";
import type { ClientRequest } from "./inbound.ts";

/** Who sent a request, as opaque keys. */
export interface Identity {
  /** The first identity in the plan's order: stickiness goes by it. undefined: nothing identifies this client. */
  readonly client: string | undefined;
  /** Its network address, whether the plan counts that as an identity or not. */
  readonly address: string;
  /** Keys that a write sets its fence for. */
  readonly writes: readonly string[];
  /** Keys that a read answered by the authority sets its fence for. */
  readonly reads: readonly string[];
  /** Keys whose fences bind a read. */
  readonly obeys: readonly string[];
}

/**
 * Finds the identities that a request carries (headers, cookies, address: as the plan says) and a response sets.
 *
 * The address is special, because behind a load balancer or a NAT it is shared by strangers: if everybody's writes bound
 * everybody's reads, no read would ever leave the authority under load. So it identifies fully only clients that have nothing
 * better. A write of a client that has something better marks the address too (its next request may come without, after a
 * logout), and such a client obeys what *anonymous* writes from its address did (one of them may have been its login, whose token came in the
 * response's body). Reads mark only what they carry: else the strangers of an address would bind each other in a circle.
 *
 * Keys are hashes: credentials are not kept in memory.
 */
export class ClientIdentities {
  readonly #sources: readonly ClientSource[];
  readonly #cookies: ReadonlySet<string>;
  readonly #byAddress: boolean;

  constructor(sources: readonly ClientSource[]) {
    this.#sources = sources;
    this.#byAddress = sources.some((source) => source.by === "ip");
    this.#cookies = new Set(
      sources.flatMap((source) => (source.by === "cookie" ? [source.name] : [])),
    );
  }

  of(request: ClientRequest): Identity {
    const strong: string[] = [];
    const address = request.socket.remoteAddress ?? "";
    for (const source of this.#sources) {
      if (source.by !== "ip")
        strong.push(
          ...valuesOf(source, request).map((value) => keyOf(source.by, source.name, value)),
        );
    }
    if (!this.#byAddress) {
      return { client: strong[0], address, writes: strong, reads: strong, obeys: strong };
    }
    const any = keyOf("ip", "", address);
    const anonymous = keyOf("ip", "anonymous", address);
    if (strong.length === 0) {
      return {
        client: any,
        address,
        writes: [any, anonymous],
        reads: [any],
        obeys: [any, anonymous],
      };
    }
    return {
      client: strong[0],
      address,
      writes: [...strong, any],
      reads: strong,
      obeys: [...strong, anonymous],
    };
  }

  /** Keys of the identities that a response gives to its client: cookies of the plan that it sets. */
  setBy(rawHeaders: readonly string[]): string[] {
    if (this.#cookies.size === 0) return [];
    const keys: string[] = [];
    for (let index = 0; index < rawHeaders.length; index += 2) {
      const name = rawHeaders[index] ?? "";
      if (name.length !== 10 || name.toLowerCase() !== "set-cookie") continue;
      const [cookie, value] = splitPair((rawHeaders[index + 1] ?? "").split(";", 1)[0] ?? "");
      if (value !== "" && this.#cookies.has(cookie)) keys.push(keyOf("cookie", cookie, value));
    }
    return keys;
  }
}

/** Where a client stands in the canary, 0 ≤ bucket < 1: it stays there while the share grows past it. */
export function bucketOf(salt: string, client: string): number {
  return hash("sha1", `${salt}:${client}`, "buffer").readUInt32BE(0) / 2 ** 32;
}

function keyOf(by: ClientSource["by"], name: string, value: string): string {
  return hash("sha1", `${by}:${name}=${value}`, "base64");
}

function valuesOf(source: Exclude<ClientSource, { by: "ip" }>, request: ClientRequest): string[] {
  if (source.by === "cookie") return cookieValues(request.headers.cookie, source.name);
  const value = request.headers[source.name.toLowerCase()];
  if (value === undefined) return [];
  return [typeof value === "string" ? value : value.join(", ")];
}

/** Every value of a cookie: the same name may be there twice, from two paths. */
function cookieValues(header: string | undefined, name: string): string[] {
  if (header === undefined) return [];
  return header
    .split(";")
    .map(splitPair)
    .filter(([cookie, value]) => cookie === name && value !== "")
    .map(([, value]) => value);
}

function splitPair(pair: string): [string, string] {
  const at = pair.indexOf("=");
  return at < 0 ? ["", ""] : [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
}
