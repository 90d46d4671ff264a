import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { otherSide } from "../../config/words.ts";
import type { Side } from "../../config/words.ts";
import { sqlState } from "../../store/postgres/session.ts";
import { openApp } from "./flip-deps.ts";
import type { FlipConfig } from "./flip-deps.ts";

/** A write that was acknowledged: this row must be on both sides in the end. */
export interface Acknowledged {
  readonly id: string;
  readonly v: string;
}

/**
 * Clients that bypass every sidecar and write with plain SQL. One that is refused (CF001) goes to the other side, as a
 * restarted cron job would; any other error fails the test.
 */
export class Writers {
  readonly acknowledged: Acknowledged[] = [];
  readonly errors: unknown[] = [];
  /** Writes refused by a guard: nothing of them may be found anywhere. */
  readonly refused: string[] = [];
  readonly #config: FlipConfig;
  readonly #runs: Promise<void>[] = [];
  #stopped = false;

  constructor(config: FlipConfig) {
    this.#config = config;
  }

  start(count: number): void {
    for (let n = 0; n < count; n += 1) this.#runs.push(this.#write(n));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#runs);
  }

  /** Resolves when `more` further writes were acknowledged. */
  async progress(more: number): Promise<void> {
    const goal = this.acknowledged.length + more;
    const deadline = performance.now() + 15_000;
    while (this.acknowledged.length < goal && this.errors.length === 0) {
      if (performance.now() > deadline) throw new Error("no write is acknowledged any more");
      await sleep(2);
    }
  }

  async #write(writer: number): Promise<void> {
    const clients: Record<Side, pg.Client> = {
      old: await openApp(this.#config, "old"),
      new: await openApp(this.#config, "new"),
    };
    let side: Side = "old";
    for (let n = 0; !this.#stopped; n += 1) {
      const v = `w${writer}-${n}`;
      try {
        const { rows } = await clients[side].query<{ id: string }>(
          "insert into items (v) values ($1) returning id",
          [v],
        );
        this.acknowledged.push({ id: rows[0]?.id ?? "", v });
      } catch (error) {
        if (sqlState(error) !== "CF001") {
          this.errors.push(error);
          break;
        }
        this.refused.push(v);
        side = otherSide(side);
      }
      // Enough traffic to be in the way of every step, and few enough rows to compare.
      await sleep(25);
    }
    await Promise.all([clients.old.end(), clients.new.end()]);
  }
}
