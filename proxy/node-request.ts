import http from "node:http";
import type { IncomingMessage } from "node:http";
import https from "node:https";
import { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import { valueOf } from "./headers.ts";
import type { RawHeaders } from "./headers.ts";
import type { RequestBody } from "./request-body.ts";
import type { Upstream } from "./upstream.ts";

export interface NodeRequest {
  readonly upstream: Upstream;
  readonly method: string;
  readonly path: string;
  readonly headers: RawHeaders;
  readonly body: RequestBody;
  /** Asked once the body has ended. */
  readonly trailers: () => RawHeaders;
  readonly headTimeoutMs: number;
}

/**
 * Sends what undici cannot: content followed by trailers, and a target that is no path (`OPTIONS *`). It goes through node:http, on a
 * connection of its own: it is rare, and is never lost in a connection that the app is closing. The answer comes to the same
 * handler as undici's.
 */
export function sendOverNode(
  { upstream, method, path, headers, body, trailers, headTimeoutMs }: NodeRequest,
  handler: Required<
    Pick<
      Dispatcher.DispatchHandler,
      "onRequestStart" | "onResponseStart" | "onResponseData" | "onResponseEnd" | "onResponseError"
    >
  >,
): void {
  const { url, tls } = upstream;
  const client = url.protocol === "https:" ? https : http;
  const asked = client.request({
    ...tls.options,
    protocol: url.protocol,
    hostname: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port,
    method,
    path,
    // An app that may keep the connection reads on after an early answer; one that closes it may cut that answer off.
    headers: [...headers, "connection", "keep-alive", ...coding(body, headers)],
    setDefaultHeaders: false,
    agent: false,
  });
  const controller = new Controller(asked);
  let over = false;
  let limit: NodeJS.Timeout | undefined;
  const fail = (error: Error) => {
    if (over) return;
    over = true;
    clearTimeout(limit);
    asked.destroy();
    if (body instanceof Readable) body.destroy();
    tls.failed(error);
    handler.onResponseError(controller, controller.reason ?? error);
  };
  asked.on("error", fail);
  asked.on("information", (information) => {
    controller.said = information.rawHeaders;
    handler.onResponseStart(controller, information.statusCode, {});
  });
  asked.on("response", (answer) => {
    clearTimeout(limit);
    controller.answer = answer;
    controller.said = answer.rawHeaders;
    answer.on("data", (chunk: Buffer) => handler.onResponseData(controller, chunk));
    answer.on("error", fail);
    answer.on("end", () => {
      if (over) return;
      over = true;
      // It may have answered before it has read everything.
      if (body instanceof Readable) body.destroy();
      asked.destroy();
      handler.onResponseEnd(controller, answer.trailersDistinct);
    });
    const { statusCode = 502, statusMessage } = answer;
    handler.onResponseStart(controller, statusCode, {}, statusMessage);
  });
  const end = () => {
    limit = setTimeout(
      () => fail(Object.assign(new Error("no answer in time"), { code: "ETIMEDOUT" })),
      headTimeoutMs,
    );
    asked.addTrailers(pairs(trailers()));
    asked.end();
  };
  handler.onRequestStart(controller, {});
  if (body instanceof Readable) {
    body.on("error", fail);
    body.on("end", end);
    body.pipe(asked, { end: false });
  } else {
    if (body !== null) asked.write(body);
    end();
  }
}

function coding(body: RequestBody, headers: RawHeaders): RawHeaders {
  const hasLength = valueOf(headers, "content-length") !== undefined;
  return body instanceof Readable && !hasLength ? ["Transfer-Encoding", "chunked"] : [];
}

/** What Transfer steers an answer with. */
class Controller implements Dispatcher.DispatchController {
  readonly #asked: http.ClientRequest;
  answer: IncomingMessage | undefined;
  /** The fields of the last head. Strings: Node has decoded them as latin1. */
  said: string[] = [];
  reason: Error | null = null;

  constructor(asked: http.ClientRequest) {
    this.#asked = asked;
  }

  get aborted(): boolean {
    return this.reason !== null;
  }

  get paused(): boolean {
    return this.answer?.isPaused() === true;
  }

  get rawHeaders(): string[] {
    return this.said;
  }

  get rawTrailers(): string[] {
    return this.answer?.rawTrailers ?? [];
  }

  abort(reason: Error): void {
    this.reason = reason;
    this.#asked.destroy(reason);
  }

  pause(): void {
    this.answer?.pause();
  }

  resume(): void {
    this.answer?.resume();
  }
}

function pairs(raw: RawHeaders): [string, string][] {
  const fields: [string, string][] = [];
  for (let index = 0; index < raw.length; index += 2)
    fields.push([raw[index] ?? "", raw[index + 1] ?? ""]);
  return fields;
}
