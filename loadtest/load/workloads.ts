import { createHash } from "node:crypto";
import type { Workload } from "./report.ts";
import type { LoadRequest } from "./cannon.ts";

/** Requests that one connection sends round and round. */
const CYCLE = 200;
const WRITES_IN_TEN = { read: 0, write: 10, mixed: 3 } as const;
const CATEGORIES = ["work", "home", "travel", "recipes", "ideas"] as const;

export interface ColonycraftData {
  readonly users: readonly string[];
  readonly conversations: readonly string[];
}

/** Users of the seed whom the checked traffic has for itself: it knows what each of their conversations must look like. */
export const CHECKED_USERS = 100;

/** What is left for the load: the other users and their seeded conversations. */
export function loadData(users: readonly string[], conversations: number): ColonycraftData {
  const ids: string[] = [];
  for (let n = 0; n < conversations; n += 1) {
    // As the example's seed makes it: the id and its user from one hash.
    const hex = createHash("md5").update(`conversation:1:${n}`).digest("hex");
    if (Number.parseInt(hex.slice(6, 12), 16) % users.length >= CHECKED_USERS)
      ids.push(hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5"));
  }
  return { users: users.slice(CHECKED_USERS), conversations: ids };
}

/**
 * What one connection asks of the ColonyCraft API. Each connection is a client of its own, with an identity and
 * conversations that no other connection writes. Nothing is created or deleted: the tables of the last phase are as
 * large as those of the first, so the phases can be compared.
 */
export function colonycraftRequests(
  data: ColonycraftData,
  workload: Exclude<Workload, "request">,
  connections: number,
): (connection: number) => LoadRequest[] {
  return (connection) =>
    Array.from({ length: CYCLE }, (_, n) => {
      const id = pick(data.conversations, n * connections + connection);
      const identity = { authorization: `Bearer load-${connection}` };
      if ((n * 7) % 10 < WRITES_IN_TEN[workload]) return write(n, id, identity);
      if (n % 4 === 3) {
        const user = pick(data.users, n * connections + connection);
        return { method: "GET", path: `/conversations?user=${user}&limit=10`, headers: identity };
      }
      return { method: "GET", path: `/conversations/${id}`, headers: identity };
    });
}

function write(n: number, id: string, identity: Readonly<Record<string, string>>): LoadRequest {
  const headers = { ...identity, "content-type": "application/json" };
  if (n % 2 === 0) {
    const category = CATEGORIES[(n / 2) % CATEGORIES.length];
    return {
      method: "PUT",
      path: `/conversations/${id}/category`,
      headers,
      body: JSON.stringify({ category }),
    };
  }
  const title = `Conversation under load, number ${n}`;
  return {
    method: "PATCH",
    path: `/conversations/${id}`,
    headers,
    body: JSON.stringify({ title }),
  };
}

function pick(items: readonly string[], n: number): string {
  const item = items[n % items.length];
  if (item === undefined) throw new Error("there is nothing to ask for");
  return item;
}
