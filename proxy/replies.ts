import type { Side } from "../config/words.ts";
import type { ClientResponse } from "./inbound.ts";

/** An answer of the sidecar itself: the app gave none. */
export interface OwnAnswer {
  readonly status: 400 | 502 | 503 | 504;
  readonly error: string;
  readonly message: string;
  readonly retryAfterS?: number;
}

/** undici's error codes that mean "it took too long". */
const TIMEOUTS: ReadonlySet<string> = new Set([
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_CONNECT_TIMEOUT",
  "ETIMEDOUT",
]);
/** The request is one that HTTP/1.1 towards the app cannot express: nothing was sent. */
const UNSENDABLE: ReadonlySet<string> = new Set(["UND_ERR_INVALID_ARG", "UND_ERR_NOT_SUPPORTED"]);

/** What to tell the client when the app of `side` did not answer. */
export function answerForFailure(side: Side, error: Error): OwnAnswer {
  const code = codeOf(error);
  if (isUnsendable(error)) {
    return {
      status: 400,
      error: "bad_request",
      message: `This request cannot be forwarded: ${error.message}.`,
    };
  }
  if (TIMEOUTS.has(code)) {
    return {
      status: 504,
      error: "gateway_timeout",
      message: `The ${side} app did not answer in time (${code}).`,
    };
  }
  const what = code === "" ? "broke off" : `could not be reached or broke off (${code})`;
  return { status: 502, error: "bad_gateway", message: `The ${side} app ${what}.` };
}

/** A request of HTTP/2 that HTTP/1.1 cannot say; `what` of it. */
export function answerForUntranslatable(what: string): OwnAnswer {
  return {
    status: 400,
    error: "bad_request",
    message: `This request cannot be forwarded because of ${what}.`,
  };
}

/** It was the request, not the app. */
export function isUnsendable(error: Error): boolean {
  return UNSENDABLE.has(codeOf(error));
}

export function answerForHold(why: "full" | "limit"): OwnAnswer {
  const message =
    why === "full"
      ? "Writes are held for a moment and too many are waiting already. This one was not sent to the app."
      : "Writes were held for longer than this one may wait. It was not sent to the app.";
  return { status: 503, error: "writes_held", message, retryAfterS: 1 };
}

/** Maintenance: reads go on, writes are told to come back. */
export function answerForMaintenance(message: string, retryAfterMs: number): OwnAnswer {
  const retryAfterS = Math.max(1, Math.ceil(retryAfterMs / 1000));
  return { status: 503, error: "maintenance", message, retryAfterS };
}

/** Sends it as JSON, unless the client is gone or an answer has begun. */
export function sendOwnAnswer(
  response: ClientResponse,
  answer: OwnAnswer,
  ownHeaders: readonly string[],
): void {
  if (response.destroyed || response.headersSent) return;
  const content = Buffer.from(JSON.stringify({ error: answer.error, message: answer.message }));
  const headers = [
    "content-type",
    "application/json",
    "content-length",
    String(content.length),
    ...ownHeaders,
  ];
  if (answer.retryAfterS !== undefined) headers.push("retry-after", String(answer.retryAfterS));
  response.writeHead(answer.status, undefined, headers);
  response.end(content);
}

/** The code of an error, or of the one that caused it. */
export function codeOf(error: Error): string {
  if ("code" in error && typeof error.code === "string") return error.code;
  if (error instanceof AggregateError && error.errors[0] instanceof Error)
    return codeOf(error.errors[0]);
  return error.cause instanceof Error ? codeOf(error.cause) : "";
}
