import { EventEmitter } from "node:events";
import { constants } from "node:http2";
import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { ClientResponse } from "./inbound.ts";

/**
 * The answer on one stream of HTTP/2. An answer that breaks off resets the stream: without END_STREAM it never looks whole.
 * Closed means that all of it went out, or that nobody waits for it any more.
 */
export class Http2Response extends EventEmitter implements ClientResponse {
  readonly #stream: ServerHttp2Stream;
  readonly #isRequestWhole: () => boolean;
  /** Of HTTP/1.1: a connection of HTTP/2 is told by GOAWAY. */
  shouldKeepAlive = true;
  #trailers: OutgoingHttpHeaders = {};
  #ended = false;
  #closed = false;

  constructor(stream: ServerHttp2Stream, isRequestWhole: () => boolean) {
    super();
    this.#stream = stream;
    this.#isRequestWhole = isRequestWhole;
    stream.on("drain", () => this.emit("drain"));
    stream.on("error", (error) => {
      if (this.listenerCount("error") > 0) this.emit("error", error);
    });
    stream.on("aborted", () => this.#close());
    stream.on("close", () => this.#close());
    stream.on("wantTrailers", () => this.#sendTrailers());
  }

  get destroyed(): boolean {
    return this.#closed || this.#stream.destroyed || this.#stream.closed;
  }

  get headersSent(): boolean {
    return this.#stream.headersSent;
  }

  get statusCode(): number {
    return Number(this.#stream.sentHeaders?.[":status"] ?? 0);
  }

  get writableNeedDrain(): boolean {
    return this.#stream.writableNeedDrain;
  }

  get writableFinished(): boolean {
    // Node ends what a reset has closed: that is no answer.
    return this.#ended && this.#stream.writableFinished && !this.#isReset();
  }

  writeContinue(): void {
    this.#inform({ ":status": 100 });
  }

  writeInformation(status: number, headers: string[]): void {
    const fields: OutgoingHttpHeaders = { ":status": status };
    for (let index = 0; index < headers.length; index += 2) {
      const name = (headers[index] ?? "").toLowerCase();
      add(fields, name, headers[index + 1] ?? "");
    }
    this.#inform(fields);
  }

  writeHead(status: number, _message: string | undefined, headers: string[]): void {
    const fields = headers.map((value, index) => (index % 2 === 0 ? value.toLowerCase() : value));
    // Node closes a stream by ending it first: an answer that breaks off would end like a whole one. With trailers to come nothing
    // ends before `#sendTrailers`.
    this.#stream.respond([":status", String(status), ...fields], {
      waitForTrailers: true,
    });
  }

  /** The head goes out by itself. */
  flushHeaders(): void {}

  write(chunk: Buffer): boolean {
    return this.#stream.write(chunk);
  }

  addTrailers(fields: [string, string][]): void {
    for (const [name, value] of fields) add(this.#trailers, name, value);
  }

  end(content?: Buffer | string, encoding?: "latin1"): void {
    this.#ended = true;
    if (content === undefined) this.#stream.end();
    else this.#stream.end(typeof content === "string" ? Buffer.from(content, encoding) : content);
  }

  destroy(): void {
    if (!this.#stream.destroyed) this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }

  #inform(headers: OutgoingHttpHeaders): void {
    if (!this.destroyed && !this.headersSent) this.#stream.additionalHeaders(headers);
  }

  #sendTrailers(): void {
    if (!this.#ended || this.destroyed) return;
    try {
      this.#stream.sendTrailers(this.#trailers);
    } catch {
      // A field that HTTP/2 does not know in trailers.
      this.destroy();
    }
    // What the app did not want to read is not asked for any more (RFC 9113 §8.1), once the end of the answer is out.
    if (!this.#isRequestWhole()) setImmediate(() => this.#stopUpload());
  }

  #stopUpload(): void {
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_NO_ERROR);
  }

  #isReset(): boolean {
    const { rstCode } = this.#stream;
    return rstCode !== undefined && rstCode !== constants.NGHTTP2_NO_ERROR;
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.emit("close");
  }
}

function add(fields: OutgoingHttpHeaders, name: string, value: string): void {
  const before = fields[name];
  fields[name] = before === undefined ? value : [before, value].flat().map(String);
}
