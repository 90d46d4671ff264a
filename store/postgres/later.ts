import { batchStatement, runBatch, type TextRow } from "./statement.ts";
import type { SyncContext } from "./sync.ts";
import { runInSync, textSize } from "./travel.ts";

/** So much is held back at most. */
const HELD_BYTES = 1 << 20;

/**
 * What a sync says to its target without needing the answer: statements travel together, in order, with whatever needs
 * one. Whoever says something else to the target calls `send` before.
 */
export class Later {
  readonly #context: SyncContext;
  #held: string[] = [];
  #bytes = 0;

  constructor(context: SyncContext) {
    this.#context = context;
  }

  /** Parameters are arrays of texts or nulls. */
  async say(sql: string, values: readonly (readonly (string | null)[])[]): Promise<void> {
    const bytes = textSize(values);
    if (this.#bytes + bytes > HELD_BYTES) await this.send();
    if (bytes > HELD_BYTES) {
      await runInSync(this.#context, this.#context.target, sql, values);
      return;
    }
    this.#held.push(await batchStatement(this.#context.target, sql, values));
    this.#bytes += bytes;
  }

  /** Sends what is held and `more` after it, in one round trip. Returns the rows of each statement. */
  async send(more: readonly string[] = []): Promise<TextRow[][]> {
    const statements = [...this.#held, ...more];
    this.#held = [];
    this.#bytes = 0;
    return statements.length === 0 ? [] : runBatch(this.#context.target, statements);
  }
}
