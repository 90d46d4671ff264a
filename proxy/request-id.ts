import { randomBytes } from "node:crypto";
import type { ClientRequest } from "./inbound.ts";

/** Not to be guessed and not to be met twice: one of its own for each process. */
const PREFIX = randomBytes(12).toString("base64url");
let count = 0;

/** The request's own id, or a new one: `x-request-id` ties a write to the writes it causes. */
export function requestIdOf(request: ClientRequest): string {
  const id = request.headers["x-request-id"];
  if (typeof id === "string" && id !== "") return id;
  count += 1;
  return `${PREFIX}-${count.toString(36)}`;
}
