import { Pool } from "undici";
import type { Dispatcher } from "undici";
import type { RawHeaders } from "../headers.ts";
import { connectorOf } from "../upstream.ts";
import type { AppTls } from "../app-tls.ts";
import { AnswerBuffer } from "./answer.ts";
import type { Asked } from "./answer.ts";

export interface Question {
  readonly method: string;
  /** The request target as the client sent it. */
  readonly url: string;
  readonly headers: RawHeaders;
  readonly body: Buffer | null;
}

/** Of one sidecar towards one app: shadow reads never crowd out the clients'. */
const CONNECTIONS = 4;
/** All of an answer may take so many times as long as its head, or one part after another. */
const WHOLE_ANSWER = 3;

/** Asks one app for the sake of comparison, over connections of its own. */
export class Asker {
  readonly #pool: Pool;
  readonly #basePath: string;
  readonly #timeoutMs: number;

  constructor(app: string, tls: AppTls, timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    const { origin, pathname } = new URL(app);
    this.#basePath = pathname.replace(/\/$/, "");
    this.#pool = new Pool(origin, {
      connections: CONNECTIONS,
      pipelining: 1,
      keepAliveTimeout: 1_000,
      keepAliveMaxTimeout: 4_000,
      connect: connectorOf(timeoutMs, tls),
      allowH2: false,
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
    });
  }

  /** Never rejects. An answer that goes on and on is given up: it cannot be compared, and would keep its place for ever. */
  async ask(question: Question, round: AbortSignal): Promise<Asked> {
    const { method, url, headers, body } = question;
    const late = AbortSignal.timeout(WHOLE_ANSWER * this.#timeoutMs);
    const signal = AbortSignal.any([round, late]);
    let answers = false;
    try {
      const answer = await this.#pool.request({
        method: method as Dispatcher.HttpMethod,
        path: url.startsWith("/") ? this.#basePath + url : url,
        headers,
        body,
        signal,
      });
      answers = true;
      const buffer = new AnswerBuffer({
        status: answer.statusCode,
        type: first(answer.headers["content-type"]),
        coding: first(answer.headers["content-encoding"]),
      });
      for await (const part of answer.body) buffer.add(part as Buffer);
      return (await buffer.finish()) ?? "unreadable";
    } catch {
      return answers && late.aborted ? "unreadable" : "none";
    }
  }

  async destroy(): Promise<void> {
    await this.#pool.destroy();
  }
}

function first(value: string | string[] | undefined): string | undefined {
  return typeof value === "string" ? value : value?.[0];
}
