import { loadPlan } from "../../config/load.ts";
import type { Phase, Side } from "../../config/words.ts";
import { progress } from "../../store/control/chunk-ledger.ts";
import { readMigration } from "../../store/control/migration.ts";
import {
  closeControlStore,
  type ControlStore,
  openControlStore,
} from "../../store/control/open.ts";
import { readWorkers } from "../../store/control/workers.ts";

/** What the live line shows of the migration. */
export interface LiveState {
  readonly phase: Phase;
  readonly authority: Side;
  readonly readsNew: number;
  /** undefined: no mirror works. */
  readonly lagMs: number | undefined;
  /** Share of all chunks, 0–1; undefined: none are planned. */
  readonly backfill: number | undefined;
}

/** Looks at the migration once a second. Straight at the control store: a CLI process a second would be a load of its own. */
export class LiveView implements AsyncDisposable {
  readonly #store: ControlStore;

  constructor(plan: string) {
    this.#store = openControlStore(loadPlan(plan), { role: "demo", instance: String(process.pid) });
  }

  /** undefined while the control store cannot be read. */
  async read(): Promise<LiveState | undefined> {
    const store = this.#store;
    try {
      const [migration, mirrors, tables] = await Promise.all([
        readMigration(store),
        readWorkers(store, "mirror"),
        progress(store, "forward"),
      ]);
      const { phase, authority, readsNew } = migration;
      const mirror = mirrors.find(
        ({ stats, seenMs }) => stats.state === "running" && seenMs < 5_000,
      );
      const chunks = tables.reduce((sum, table) => sum + table.chunks, 0);
      const done = tables.reduce((sum, table) => sum + table.done, 0);
      return {
        phase,
        authority,
        readsNew,
        lagMs: mirror?.stats.lag_ms,
        backfill: chunks === 0 ? undefined : done / chunks,
      };
    } catch {
      return undefined;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeControlStore(this.#store);
  }
}
