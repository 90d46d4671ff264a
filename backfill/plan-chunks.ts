import { randomBytes } from "node:crypto";
import type { Plan } from "../config/plan-types.ts";
import type { Direction } from "../config/words.ts";
import { replaceChunks } from "../store/control/chunk-ledger.ts";
import type { ControlStore } from "../store/control/open.ts";
import { planChunks } from "../store/postgres/chunks.ts";
import { copyOrder } from "./copy-order.ts";
import { openEngine } from "../store/postgres/engine.ts";

export interface PlannedTable {
  readonly table: string;
  readonly chunks: number;
  readonly rows: number;
}

/**
 * Plans the chunks of every driving table of a direction and enters them in the ledger as pending. Repeating it starts
 * the copy over. The boundaries become current on both sides before the ledger names them.
 */
export async function planBackfill(
  plan: Plan,
  store: ControlStore,
  active: { readonly direction: Direction; readonly epoch: number },
): Promise<PlannedTable[]> {
  const engine = await openEngine({
    plan,
    ...active,
    role: "plan",
    instance: randomBytes(3).toString("hex"),
    statementTimeoutMs: 3_600_000,
  });
  try {
    const { compiled, source, target } = engine.context;
    const planned: PlannedTable[] = [];
    for (const [order, driver] of copyOrder(compiled.drivers).entries()) {
      const { version, chunks } = await planChunks(
        compiled,
        driver,
        source,
        target,
        plan.backfill.chunk,
      );
      const ranges = chunks.map((chunk) => ({
        n: chunk.n,
        lo: chunk.lo ?? undefined,
        hi: chunk.hi ?? undefined,
        estRows: chunk.rows,
        planVersion: version,
      }));
      await replaceChunks(store, active.direction, driver.name, ranges, order);
      planned.push({
        table: driver.name,
        chunks: chunks.length,
        rows: chunks.reduce((sum, chunk) => sum + chunk.rows, 0),
      });
    }
    return planned;
  } finally {
    await engine.close();
  }
}
