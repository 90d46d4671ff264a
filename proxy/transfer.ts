import { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import {
  contentLength,
  decodeHeaders,
  informationHeaders,
  mayBringTrailers,
  requestTrailers,
  responseHeaders,
  sendableText,
  valueOf,
} from "./headers.ts";
import type { RawHeaders } from "./headers.ts";
import { isHttp10 } from "./inbound.ts";
import type { ClientRequest, ClientResponse } from "./inbound.ts";
import { sendOverNode } from "./node-request.ts";
import type { RequestBody } from "./request-body.ts";
import type { Upstream } from "./upstream.ts";

/** Answers up to this size that have to wait for something are collected first; larger ones wait with their head. */
const SMALL_BYTES = 64 * 1024;
/** Up to here copying an answer costs less than a second buffer to the kernel. */
const ONE_WRITE_BYTES = 16 * 1024;

export interface TransferJob {
  readonly request: ClientRequest;
  readonly response: ClientResponse;
  readonly upstream: Upstream;
  /** The request target as the client sent it. */
  readonly url: string;
  readonly headers: RawHeaders;
  readonly body: RequestBody;
  readonly headTimeoutMs: number;
}

/** What the sidecar decides while an answer comes in. */
export interface TransferHooks {
  /** The head of the app's answer. `wait`: call `settle` before sending; `drop`: it will be asked elsewhere. */
  onHead(status: number, headers: RawHeaders): "send" | "wait" | "drop";
  /** Resolves when the answer may be sent, or `drop`: it will be asked elsewhere. */
  settle(): Promise<"send" | "drop">;
  /** Header fields of this sidecar for the answer. */
  ownHeaders(): string[];
  /** A part of the answer has come. It is sent after this, as soon as the answer may be. */
  onPart(part: Buffer): void;
  /** The client does not take the answer as fast as it comes; then it does again. */
  onBackpressure(isOn: boolean): void;
  /** The app's answer is complete. `settleFollows`: it waited for that, and `settle` is called next. */
  onDone(settleFollows: boolean): void;
  /** The dropped answer is gone. */
  onDropped(): void;
  /** The app did not answer, or broke off. If nothing was sent the client still waits for an answer. */
  onFailed(error: Error, nothingSent: boolean): void;
}

export class ClientLeft extends Error {}
class Dropped extends Error {}

/**
 * One request to one app and its answer back to the client: undici `dispatch` straight into the response, without a
 * stream in between (streams were the cost of proxies in Node: BASELINES). Backpressure and aborts go both ways; an answer that breaks off
 * destroys the client's connection, so that it never looks whole.
 */
export class Transfer implements Dispatcher.DispatchHandler {
  readonly #job: TransferJob;
  readonly #hooks: TransferHooks;
  #controller: Dispatcher.DispatchController | undefined;
  #status = 0;
  #message: string | undefined;
  #headers: RawHeaders = [];
  #length: number | undefined;
  #received = 0;
  /** Parts that came before the answer may be sent; then the last part, kept to be sent together with the end. */
  #kept: Buffer[] = [];
  #state: "waiting" | "open" | "over" = "waiting";
  #flushed = false;
  #trailers: NodeJS.Dict<string | string[]> | undefined;
  #waitsForEnd = false;
  #ended = false;
  #dropped = false;
  #left = false;

  constructor(job: TransferJob, hooks: TransferHooks) {
    this.#job = job;
    this.#hooks = hooks;
  }

  start(): void {
    const { request, upstream, url, headers, body, headTimeoutMs } = this.#job;
    const method = request.method ?? "GET";
    const path = upstream.path(url);
    const hasTrailers = body instanceof Readable && mayBringTrailers(request);
    if (hasTrailers || path === "*") {
      const trailers = () => (hasTrailers ? requestTrailers(request) : []);
      sendOverNode({ upstream, method, path, headers, body, trailers, headTimeoutMs }, this);
      return;
    }
    upstream.pool.dispatch(
      {
        method: method as Dispatcher.HttpMethod,
        path,
        headers,
        body,
        headersTimeout: headTimeoutMs,
      },
      this,
    );
  }

  /** The client has left: the app is told by closing its connection. */
  abort(): void {
    this.#left = true;
    this.#controller?.abort(new ClientLeft("the client left"));
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#left) controller.abort(new ClientLeft("the client left"));
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: NodeJS.Dict<string | string[]>,
    message?: string,
  ): void {
    if (status < 200) {
      this.#inform(status, (controller.rawHeaders ?? []) as Buffer[]);
      return;
    }
    this.#status = status;
    this.#message = sendableText(message);
    this.#headers = decodeHeaders((controller.rawHeaders ?? []) as Buffer[]);
    this.#length = this.#expectedLength();
    this.#follow(controller, this.#hooks.onHead(status, this.#headers));
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#received += chunk.length;
    this.#hooks.onPart(chunk);
    // Also while paused: when the app closes its connection undici hands over what it still has.
    if (this.#state === "waiting") this.#kept.push(chunk);
    else this.#send(chunk);
  }

  onResponseEnd(
    _controller: Dispatcher.DispatchController,
    trailers: NodeJS.Dict<string | string[]>,
  ): void {
    this.#ended = true;
    this.#trailers = trailers;
    this.#hooks.onDone(this.#waitsForEnd);
    if (this.#state === "open") this.#finish();
    else if (this.#waitsForEnd) void this.#openLater();
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (this.#dropped) {
      this.#hooks.onDropped();
      return;
    }
    const nothingSent = this.#state === "waiting";
    this.#state = "over";
    this.#hooks.onFailed(error, nothingSent);
    if (!nothingSent) this.#job.response.destroy();
  }

  #follow(controller: Dispatcher.DispatchController, verdict: "send" | "wait" | "drop"): void {
    if (verdict === "send") {
      this.#open();
    } else if (verdict === "drop") {
      this.#drop();
    } else if (this.#length !== undefined && this.#length <= SMALL_BYTES) {
      this.#waitsForEnd = true;
    } else {
      controller.pause();
      void this.#openLater();
    }
  }

  async #openLater(): Promise<void> {
    const verdict = await this.#hooks.settle();
    if (this.#state !== "waiting") return;
    if (verdict === "send") this.#open();
    else this.#drop();
  }

  #drop(): void {
    if (this.#ended) {
      this.#state = "over";
      this.#hooks.onDropped();
      return;
    }
    this.#dropped = true;
    this.#controller?.abort(new Dropped("answered elsewhere"));
  }

  /** Sends the head and what is there already. */
  #open(): void {
    this.#state = "open";
    const { response } = this.#job;
    if (this.#left || response.destroyed) return;
    const headers = responseHeaders(
      this.#headers,
      this.#hooks.ownHeaders(),
      this.#mayHaveTrailers(),
    );
    try {
      response.writeHead(this.#status, this.#message, headers);
    } catch (error) {
      // A status text or field that Node refuses to send.
      this.#controller?.abort(error as Error);
      response.destroy();
      return;
    }
    if (this.#ended) this.#finish();
    else this.#goOn();
  }

  #goOn(): void {
    const { response } = this.#job;
    for (const chunk of this.#kept.splice(0)) this.#write(chunk);
    if (response.writableNeedDrain) this.#pause();
    else this.#controller?.resume();
    // A small answer comes in one piece with its head. Anything else must not keep the head waiting: event streams.
    if (this.#length === undefined || this.#length > SMALL_BYTES)
      process.nextTick(() => this.#flush());
  }

  #flush(): void {
    const { response } = this.#job;
    if (this.#flushed || this.#ended || response.destroyed) return;
    this.#flushed = true;
    response.flushHeaders();
  }

  #send(chunk: Buffer): void {
    if (this.#received === this.#length) this.#kept.push(chunk);
    else if (!this.#write(chunk)) this.#pause();
  }

  /** Until the client has taken what it was sent. */
  #pause(): void {
    this.#controller?.pause();
    this.#hooks.onBackpressure(true);
    this.#job.response.once("drain", () => {
      this.#hooks.onBackpressure(false);
      this.#controller?.resume();
    });
  }

  #write(chunk: Buffer): boolean {
    this.#flushed = true;
    return this.#job.response.destroyed || this.#job.response.write(chunk);
  }

  #finish(): void {
    const { response } = this.#job;
    this.#state = "over";
    if (response.destroyed) return;
    if (this.#trailers !== undefined && this.#mayHaveTrailers())
      addTrailers(response, this.#trailers);
    const last = this.#kept.pop();
    for (const chunk of this.#kept) this.#write(chunk);
    if (last === undefined) response.end();
    else if (this.#flushed || last.length > ONE_WRITE_BYTES) response.end(last);
    // As a string it is joined with the head into one write; latin1 keeps every byte as it is.
    else response.end(last.toString("latin1"), "latin1");
  }

  /** `100` only says that the app reads on: the client has heard that from here. */
  #inform(status: number, raw: readonly (Buffer | string)[]): void {
    const { request, response } = this.#job;
    if (status <= 101 || isHttp10(request) || response.headersSent || response.destroyed) return;
    try {
      response.writeInformation?.(status, informationHeaders(decodeHeaders(raw)));
    } catch {
      // A hint that cannot be sent must not cost the answer.
    }
  }

  #expectedLength(): number | undefined {
    if (this.#hasNoContent()) return 0;
    return contentLength(valueOf(this.#headers, "content-length"));
  }

  #hasNoContent(): boolean {
    return this.#job.request.method === "HEAD" || this.#status === 204 || this.#status === 304;
  }

  /** Trailers need chunked coding on both sides. */
  #mayHaveTrailers(): boolean {
    return !isHttp10(this.#job.request) && !this.#hasNoContent() && this.#length === undefined;
  }
}

function addTrailers(response: ClientResponse, trailers: NodeJS.Dict<string | string[]>): void {
  const fields = Object.entries(trailers).flatMap(([name, value]) =>
    [value ?? []].flat().map((one): [string, string] => [name, one]),
  );
  if (fields.length > 0) response.addTrailers(fields);
}
