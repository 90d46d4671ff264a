import type { FastifyReply, FastifyRequest } from "fastify";
import { readEvents, readEventsAfter } from "../store/control/history.ts";
import type { TimelineEvent } from "../store/control/history.ts";
import type { Listener } from "../store/control/listen.ts";
import type { ControlStore } from "../store/control/open.ts";

/** Server-sent events: the timeline as it grows, and the status whenever it is another. */

export interface EventSources {
  readonly store: ControlStore;
  readonly listener: Listener;
  /** Undefined: only the timeline is wanted. */
  readonly status: (() => Promise<object>) | undefined;
}

/** Messages make it fast, looking makes it sure. */
const LOOK_MS = 1_000;
/** An event with a lower id may be committed after one with a higher: so many are looked at again. */
const OVERLAP = 50;
/** What a client that begins gets of the past. */
const FIRST = 100;

/** Streams until the client leaves or the server closes. Begins after `last-event-id` (or `?after=`), else with the last hundred. */
export async function streamEvents(
  sources: EventSources,
  request: FastifyRequest<{ Querystring: { after?: string } }>,
  reply: FastifyReply,
  signal: AbortSignal,
): Promise<FastifyReply> {
  const { raw } = reply.hijack();
  const gone = new AbortController();
  raw.on("close", () => gone.abort());
  const ended = AbortSignal.any([gone.signal, signal]);
  raw.writeHead(200, {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
  });
  raw.write("retry: 1000\n\n");
  const from = Number(request.headers["last-event-id"] ?? request.query.after ?? Number.NaN);
  const timeline = new TimelineReader(sources.store, Number.isSafeInteger(from) ? from : undefined);
  let said = "";
  while (!ended.aborted) {
    const news = sources.listener.next(
      (message) => message.t === "event" || message.t === "state",
      LOOK_MS,
      ended,
    );
    try {
      for (const event of await timeline.next()) write(raw, "timeline", event, event.id);
      const status = await sources.status?.();
      const text = JSON.stringify(status ?? null);
      if (status !== undefined && text !== said) raw.write(`event: status\ndata: ${text}\n\n`);
      else raw.write(":\n\n");
      said = text;
    } catch {
      // The store is away; the client keeps what it has, and hears from us when it is back.
      raw.write(":\n\n");
    }
    if (raw.writableNeedDrain) await Promise.race([drained(raw), aborted(ended)]);
    await news;
  }
  raw.end();
  return reply;
}

/** Follows the timeline without a gap and without saying anything twice. */
class TimelineReader {
  readonly #store: ControlStore;
  readonly #sent = new Set<number>();
  #last: number | undefined;
  /** Nothing up to here was asked for. */
  #floor = 0;

  constructor(store: ControlStore, after: number | undefined) {
    this.#store = store;
    this.#last = after;
    this.#floor = after ?? 0;
  }

  async next(): Promise<TimelineEvent[]> {
    const found =
      this.#last === undefined
        ? await readEvents(this.#store, { limit: FIRST })
        : await readEventsAfter(this.#store, Math.max(this.#floor, this.#last - OVERLAP));
    const fresh = found.filter(({ id }) => !this.#sent.has(id));
    if (this.#last === undefined) this.#floor = (fresh[0]?.id ?? 1) - 1;
    this.#last = Math.max(this.#last ?? 0, fresh.at(-1)?.id ?? 0);
    for (const { id } of fresh) this.#sent.add(id);
    for (const id of this.#sent) if (id < this.#last - 2 * OVERLAP) this.#sent.delete(id);
    return fresh;
  }
}

function write(raw: NodeJS.WritableStream, name: string, data: object, id: number): void {
  raw.write(`id: ${id}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
}

async function drained(raw: NodeJS.WritableStream): Promise<void> {
  await new Promise<void>((resolve) => raw.once("drain", () => resolve()));
}

async function aborted(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
