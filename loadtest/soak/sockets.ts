import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";
import type { Trouble } from "./trouble.ts";
import { Sequence } from "./sequence.ts";
import type { SocketFindings } from "./verdict.ts";

const SOCKETS = 6;
const EVERY_MS = 100;
/** Messages of one connection: 20 s and more, so that most live through a flip. */
const MESSAGES = [200, 400] as const;
/** Long enough for whatever a flip or a busy machine does to an echo. */
const ANSWER_MS = 20_000;
const SMALL = 100;
/** One in so many is large: more than one write of a socket. */
const LARGE_EACH = 25;
const LARGE = 200_000;

/** Connections through the sidecar on which numbered messages are echoed by the app. */
export class EchoSockets {
  readonly #url: string;
  readonly #trouble: Trouble;
  readonly #counts = {
    connections: 0,
    failed: 0,
    messages: 0,
    lost: 0,
    duplicated: 0,
    damaged: 0,
  };
  #stopping = false;
  readonly #loops: Promise<void>[];

  constructor(sidecar: string, trouble: Trouble) {
    this.#url = `${sidecar.replace(/^http/, "ws")}/soak/echo`;
    this.#trouble = trouble;
    this.#loops = Array.from({ length: SOCKETS }, (_, index) => this.#loop(index));
    for (const loop of this.#loops) loop.catch(() => undefined);
  }

  get findings(): SocketFindings {
    return { ...this.#counts };
  }

  /** Waits for the echoes under way and closes. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
  }

  async #loop(index: number): Promise<void> {
    // Not all at once: else they would all be opened between the same two flips.
    await sleep((index * EVERY_MS * MESSAGES[0]) / SOCKETS / 4);
    while (!this.#stopping) {
      this.#counts.connections += 1;
      try {
        await this.#converse(index);
      } catch (error) {
        this.#counts.failed += 1;
        this.#trouble.add(`websocket ${index}`, error);
        await sleep(EVERY_MS);
      }
    }
  }

  async #converse(index: number): Promise<void> {
    const socket = new WebSocket(this.#url, {
      headers: { authorization: `Bearer socket-${index}` },
      handshakeTimeout: ANSWER_MS,
    });
    const closed = new Promise<number>((resolve) => socket.once("close", resolve));
    // Told by "close", and by `once(…, "open")` before it is open.
    socket.on("error", () => undefined);
    await once(socket, "open");
    const sequence = new Sequence();
    const sent = new Map<number, string>();
    socket.on("message", (data: Buffer) => {
      const text = data.toString("latin1");
      const number = Number(text.slice(0, text.indexOf(":")));
      if (sent.has(number) && sent.get(number) !== text) this.#counts.damaged += 1;
      sent.delete(number);
      sequence.take(number);
    });
    const most = MESSAGES[0] + Math.random() * (MESSAGES[1] - MESSAGES[0]);
    let count = 0;
    while (count < most && !this.#stopping && socket.readyState === WebSocket.OPEN) {
      const text = `${count}:${"x".repeat(count % LARGE_EACH === 1 ? LARGE : SMALL)}`;
      sent.set(count, text);
      socket.send(text);
      count += 1;
      await sleep(EVERY_MS);
    }
    const deadline = performance.now() + ANSWER_MS;
    while (
      sequence.next < count &&
      socket.readyState === WebSocket.OPEN &&
      performance.now() < deadline
    )
      await sleep(EVERY_MS);
    const broken = socket.readyState !== WebSocket.OPEN;
    if (!broken) socket.close(4_000 + index, "enough");
    const code = await Promise.race([closed, sleep(ANSWER_MS, 0, { ref: false })]);
    socket.terminate();
    sequence.end(count);
    this.#counts.messages += count;
    this.#counts.lost += sequence.lost;
    this.#counts.duplicated += sequence.duplicated;
    // The app's close frame carries the code of ours: that it comes back says that the close went all the way.
    if (broken || code !== 4_000 + index)
      throw new Error(
        `closed with code ${code} after ${count} messages, expected ${4_000 + index} after being asked`,
      );
  }
}
