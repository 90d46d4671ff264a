import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "undici";
import { Sequence } from "./sequence.ts";
import type { Trouble } from "./trouble.ts";
import type { EventFindings } from "./verdict.ts";

const STREAMS = 6;
const EVERY_MS = 100;
/** Events of one stream: 20 s and more, so that most live through a flip. */
const EVENTS = [200, 400] as const;
const ANSWER_MS = 20_000;

/** Event streams through the sidecar, read to their end and opened again. */
export class EventStreams {
  readonly #pool: Pool;
  readonly #trouble: Trouble;
  readonly #counts = { streams: 0, failed: 0, events: 0, lost: 0, duplicated: 0 };
  readonly #abort = new AbortController();
  readonly #loops: Promise<void>[];

  constructor(sidecar: string, trouble: Trouble) {
    this.#trouble = trouble;
    this.#pool = new Pool(sidecar, { headersTimeout: ANSWER_MS, bodyTimeout: ANSWER_MS });
    this.#loops = Array.from({ length: STREAMS }, (_, index) => this.#loop(index));
    for (const loop of this.#loops) loop.catch(() => undefined);
  }

  get findings(): EventFindings {
    return { ...this.#counts };
  }

  /** Leaves the streams where they are. */
  async stop(): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#loops);
    await this.#pool.destroy();
  }

  async #loop(index: number): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      this.#counts.streams += 1;
      const sequence = new Sequence();
      const count = Math.round(EVENTS[0] + Math.random() * (EVENTS[1] - EVENTS[0]));
      try {
        await this.#read(index, count, sequence);
      } catch (error) {
        if (!signal.aborted) {
          this.#counts.failed += 1;
          this.#trouble.add(`event stream ${index}`, error);
          sequence.end(count);
        }
      }
      this.#counts.lost += sequence.lost;
      this.#counts.duplicated += sequence.duplicated;
      await sleep(EVERY_MS);
    }
  }

  async #read(index: number, count: number, sequence: Sequence): Promise<void> {
    const { statusCode, body } = await this.#pool.request({
      method: "GET",
      path: `/soak/events?count=${count}&every=${EVERY_MS}`,
      headers: { authorization: `Bearer stream-${index}`, accept: "text/event-stream" },
      signal: this.#abort.signal,
    });
    if (statusCode !== 200) throw new Error(`answered ${statusCode} ${await body.text()}`);
    let rest = "";
    let ended = false;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      const events = (rest + chunk.toString("latin1")).split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        const number = Number(/^id: (\d+)$/m.exec(event)?.[1]);
        ended ||= event.startsWith("event: end\n");
        if (ended) sequence.end(count);
        else {
          sequence.take(number);
          this.#counts.events += 1;
        }
      }
    }
    if (!ended) throw new Error(`ended after ${sequence.next} of ${count} events`);
  }
}
