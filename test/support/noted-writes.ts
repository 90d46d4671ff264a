import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../../examples/support/random.ts";

/** What is known of one row: nobody else writes it. */
interface Row {
  acknowledged: string | undefined;
  /** Sent last, and not answered with yes or no: it may be there. */
  open: string | undefined;
}

const ANSWER_MS = 20_000;
const PAUSE_MS = 25;

/**
 * A client that writes through one sidecar, without pause, and keeps what it was told: 201 is there, 409 (the guard refused) is
 * not, and anything else is open. A row with an open write is left alone from then on, for it may still arrive.
 */
export class NotedWrites {
  readonly refused: string[] = [];
  acknowledged = 0;
  readonly #url: string;
  readonly #name: number;
  readonly #random: Random;
  readonly #rows = new Map<number, Row>();
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  readonly #run: Promise<void>;
  #stopped = false;

  constructor(url: string, name: number, random: Random) {
    this.#url = url;
    this.#name = name;
    this.#random = random;
    this.#run = this.#write();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#run;
    this.#agent.destroy();
  }

  /** Everything in which a table differs from what this client was told; it takes its rows out of `found`. */
  differences(found: Map<number, string>): string[] {
    const wrong: string[] = [];
    for (const [id, { acknowledged, open }] of this.#rows) {
      const body = found.get(id);
      found.delete(id);
      if (body === acknowledged || (body !== undefined && body === open)) continue;
      wrong.push(`${id}: acknowledged ${acknowledged}, open ${open}, found ${body}`);
    }
    return wrong;
  }

  async #write(): Promise<void> {
    let next = this.#name * 1_000_000;
    let hot = (next += 1);
    for (let n = 0; !this.#stopped; n += 1) {
      const id = this.#random.chance(0.5) ? hot : (next += 1);
      const body = `client ${this.#name} write ${n}`;
      const row = this.#rows.get(id) ?? { acknowledged: undefined, open: undefined };
      this.#rows.set(id, row);
      row.open = body;
      const answer = await this.#send(id, body);
      if (answer.startsWith("201")) {
        Object.assign(row, { acknowledged: body, open: undefined });
        this.acknowledged += 1;
      } else if (answer === "409 CF001") {
        row.open = undefined;
        this.refused.push(body);
      } else if (id === hot) hot = next += 1;
      await sleep(PAUSE_MS);
    }
  }

  #send(id: number, body: string): Promise<string> {
    return new Promise((resolve) => {
      const request = http.request(
        `${this.#url}/${id}`,
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
