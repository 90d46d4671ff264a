import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { otherSide, type Side } from "../../config/words.ts";
import { Random } from "../../examples/support/random.ts";
import { NEW_OPERATIONS, OLD_OPERATIONS, type Operation } from "./northwind-operations.ts";

export interface WriterCounts {
  committed: number;
  rolledBack: number;
  /** Refused by a guard (CF001): the other side is the authority. */
  refused: number;
  /** Writers that met each other: a taken key, a row that is still referenced, a deadlock. */
  conflicts: number;
}

/** unique, foreign key, deadlock, serialisation */
const CONFLICTS = new Set(["23505", "23503", "40P01", "40001"]);
const OPERATIONS: Readonly<Record<Side, readonly Operation[]>> = {
  old: OLD_OPERATIONS,
  new: NEW_OPERATIONS,
};
/** Realistic, and leaves the machine something to do the migration with. */
const PAUSE_MS = 5;

/**
 * Stray writers: plain SQL past every sidecar, on whichever side takes writes. One that is refused goes to the other side,
 * as a restarted cron job would. One transaction in eight is rolled back. Any error but a conflict fails the test.
 */
export class NorthwindWriters {
  readonly counts: WriterCounts = { committed: 0, rolledBack: 0, refused: 0, conflicts: 0 };
  readonly errors: unknown[] = [];
  readonly #urls: Readonly<Record<Side, string>>;
  readonly #runs: Promise<void>[];
  readonly #underWay = new Set<Promise<void>>();
  #gate: PromiseWithResolvers<void> | undefined;
  #stopped = false;

  constructor(urls: Readonly<Record<Side, string>>, count: number, seed: number) {
    this.#urls = urls;
    this.#runs = Array.from({ length: count }, (_, n) => this.#write(new Random(seed * 1_000 + n)));
  }

  /** Resolves when no transaction is under way; none begins until `resume()`. */
  async pause(): Promise<void> {
    this.#gate ??= Promise.withResolvers<void>();
    await Promise.allSettled(this.#underWay);
  }

  resume(): void {
    this.#gate?.resolve();
    this.#gate = undefined;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.resume();
    await Promise.all(this.#runs);
  }

  async #write(random: Random): Promise<void> {
    const clients = { old: await open(this.#urls.old), new: await open(this.#urls.new) };
    let side: Side = "old";
    while (!this.#stopped && this.errors.length === 0) {
      await this.#gate?.promise;
      const work = this.#transact(clients[side], side, random).then((refused) => {
        if (refused) side = otherSide(side);
      });
      this.#underWay.add(work);
      await work;
      this.#underWay.delete(work);
      await sleep(PAUSE_MS);
    }
    await Promise.all([clients.old.end(), clients.new.end()]);
  }

  /** True if the guard refused it. */
  async #transact(client: pg.Client, side: Side, random: Random): Promise<boolean> {
    const operation = random.pick(OPERATIONS[side]);
    const undo = random.chance(0.125);
    try {
      await client.query("begin");
      for (const [text, ...values] of operation(random)) await client.query(text, values);
      await client.query(undo ? "rollback" : "commit");
      this.counts[undo ? "rolledBack" : "committed"] += 1;
      return false;
    } catch (error) {
      await client.query("rollback").catch(() => undefined);
      const state = error instanceof pg.DatabaseError ? error.code : undefined;
      if (state === "CF001") this.counts.refused += 1;
      else if (state !== undefined && CONFLICTS.has(state)) this.counts.conflicts += 1;
      else this.errors.push(new Error(`${side}: ${String(operation)}`, { cause: error }));
      return state === "CF001";
    }
  }
}

async function open(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: "stray writer" });
  await client.connect();
  return client;
}
