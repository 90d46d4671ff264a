import { randomBytes } from "node:crypto";
import { messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import { type Engine, type EngineOptions, openEngine } from "../store/postgres/engine.ts";
import type { SyncContext } from "../store/postgres/sync.ts";

/** Fewer chunks than this are compared sooner than more sessions are opened. */
const ENOUGH_CHUNKS = 4;

type CrewOptions = Omit<EngineOptions, "role" | "instance"> & {
  readonly log: Log;
  /** How many chunks are compared at the same time, at most. */
  readonly size: number;
};

/** The sessions of one comparison: one pair to begin with, more of them once a table is worth it. */
export class VerifyCrew {
  readonly #options: CrewOptions;
  readonly #engines: Engine[];

  private constructor(options: CrewOptions, first: Engine) {
    this.#options = options;
    this.#engines = [first];
  }

  static async open(options: CrewOptions): Promise<VerifyCrew> {
    return new VerifyCrew(options, await hire(options));
  }

  /** For everything that is done once. */
  get first(): Engine {
    const [engine] = this.#engines;
    if (engine === undefined) throw new Error("a crew has at least one engine");
    return engine;
  }

  /**
   * Does `work` for every item, several at a time. After an error nobody begins another item, and it is thrown once all have
   * stopped: their sessions are free then.
   */
  async each<T>(
    items: readonly T[],
    work: (context: SyncContext, item: T) => Promise<void>,
  ): Promise<void> {
    if (items.length >= ENOUGH_CHUNKS) await this.#grow();
    const queue = items.values();
    const errors: unknown[] = [];
    const run = async ({ context }: Engine) => {
      for (const item of queue) {
        if (errors.length > 0) return;
        await work(context, item);
      }
    };
    await Promise.all(
      this.#engines.map((engine) => run(engine).catch((error: unknown) => errors.push(error))),
    );
    if (errors.length > 0) throw errors[0];
  }

  async #grow(): Promise<void> {
    while (this.#engines.length < this.#options.size) {
      try {
        this.#engines.push(await hire(this.#options));
      } catch (error) {
        // No connection is left, for instance: fewer sessions take longer and find the same.
        this.#options.log.info({ err: error }, `verify: with fewer sessions: ${messageOf(error)}`);
        return;
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#engines.map((engine) => engine.close()));
  }
}

function hire(options: CrewOptions): Promise<Engine> {
  return openEngine({ ...options, role: "verify", instance: randomBytes(3).toString("hex") });
}
