import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../../examples/support/random.ts";

/** What is known of one row, which nobody else writes: numbers of this client's writes. */
interface Row {
  acknowledged: number;
  /** Sent last, and not answered with yes or no: it may be there. */
  open: number | undefined;
}

const ANSWER_MS = 20_000;

export interface NotedOptions {
  /** Where it writes: the next of them whenever the guard has refused. */
  readonly urls: readonly string[];
  readonly name: number;
  readonly random: Random;
  readonly pauseMs: number;
}

/**
 * A client that writes all the time and keeps what it was told: 201 is there, 409 (the guard refused) is not, and anything else
 * is open. A row with an open write is left alone from then on, for it may still arrive. Each row holds the number of its write.
 */
export class NotedWrites {
  refused = 0;
  acknowledged = 0;
  readonly #options: NotedOptions;
  readonly #rows = new Map<number, Row>();
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  readonly #run: Promise<void>;
  #stopped = false;

  constructor(options: NotedOptions) {
    this.#options = options;
    this.#run = this.#write();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#run;
    this.#agent.destroy();
  }

  /** The last acknowledged write of each row. */
  told(): Map<number, number> {
    const rows = [...this.#rows].filter(([, { acknowledged }]) => acknowledged > 0);
    return new Map(rows.map(([id, { acknowledged }]) => [id, acknowledged]));
  }

  /** Everything in which a table differs from what this client was told in the end; it takes its rows out of `found`. */
  differences(found: Map<number, number>): string[] {
    const wrong: string[] = [];
    for (const [id, { acknowledged, open }] of this.#rows) {
      const n = found.get(id) ?? 0;
      found.delete(id);
      if (n !== acknowledged && n !== open)
        wrong.push(`row ${id}: acknowledged ${acknowledged}, open ${open}, found ${n}`);
    }
    return wrong;
  }

  async #write(): Promise<void> {
    const { urls, name, random, pauseMs } = this.#options;
    let next = name * 1_000_000;
    let hot = (next += 1);
    for (let n = 1; !this.#stopped; n += 1) {
      const id = random.chance(0.5) ? hot : (next += 1);
      const row = this.#rows.get(id) ?? { acknowledged: 0, open: undefined };
      this.#rows.set(id, row);
      row.open = n;
      const answer = await this.#send(`${urls[this.refused % urls.length]}/${id}`, String(n));
      if (answer.startsWith("201")) {
        Object.assign(row, { acknowledged: n, open: undefined });
        this.acknowledged += 1;
      } else if (answer === "409 CF001") {
        row.open = undefined;
        this.refused += 1;
      } else if (id === hot) hot = next += 1;
      await sleep(pauseMs);
    }
  }

  #send(url: string, body: string): Promise<string> {
    return new Promise((resolve) => {
      const request = http.request(
        url,
        { method: "PUT", agent: this.#agent, signal: AbortSignal.timeout(ANSWER_MS) },
        (response) => {
          let text = "";
          response.on("data", (part: Buffer) => (text += part.toString()));
          response.on("error", () => resolve("broken"));
          response.on("end", () => resolve(`${response.statusCode} ${text}`));
        },
      );
      request.on("error", () => resolve("broken"));
      request.end(body);
    });
  }
}
