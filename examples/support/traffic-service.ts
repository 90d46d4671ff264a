import type { Pool } from "undici";
import type { TrafficRecorder } from "./traffic-counters.ts";

export interface ServiceRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  readonly body?: object;
}

export interface Answer {
  /** The status was one that the caller expects. */
  readonly ok: boolean;
  /** 0: no answer came. */
  readonly status: number;
  readonly body: unknown;
}

export interface ServiceOptions {
  /** Identity of the client: its `authorization` header. */
  readonly name: string;
  readonly pool: Pool;
  readonly recorder: TrafficRecorder;
}

/** The service as one client reaches it: every request is timed and counted, nothing is repeated. */
export class Service {
  readonly #options: ServiceOptions;

  constructor(options: ServiceOptions) {
    this.#options = options;
  }

  /** Whatever is not answered with one of the `expected` statuses counts as failed. */
  async send(
    kind: "reads" | "writes",
    request: ServiceRequest,
    expected: readonly number[],
  ): Promise<Answer> {
    const { name, recorder } = this.#options;
    const started = performance.now();
    const answer = await this.#exchange(request).catch((error: unknown) => String(error));
    const { status, text, side } = typeof answer === "string" ? NO_ANSWER : answer;
    recorder.answered(kind, performance.now() - started, side);
    const why = typeof answer === "string" ? answer : refusal(answer, expected);
    if (why !== undefined)
      recorder.failed({ client: name, request: `${request.method} ${request.path}`, why });
    return { ok: why === undefined, status, body: parse(text) };
  }

  async #exchange({ method, path, body }: ServiceRequest): Promise<Exchange> {
    const response = await this.#options.pool.request({
      method,
      path,
      headers: {
        authorization: `Bearer ${this.#options.name}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.body.text();
    return {
      status: response.statusCode,
      text,
      side: response.headers["crossfade-side"]?.toString(),
    };
  }
}

interface Exchange {
  readonly status: number;
  readonly text: string;
  readonly side: string | undefined;
}

const NO_ANSWER: Exchange = { status: 0, text: "", side: undefined };

function refusal({ status, text }: Exchange, expected: readonly number[]): string | undefined {
  if (!expected.includes(status))
    return `answered ${status} ${text.slice(0, 200)}, expected ${expected.join(" or ")}`;
  return text !== "" && parse(text) === undefined
    ? `answered ${status} with what is no JSON: ${text.slice(0, 200)}`
    : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
