import { randomBytes } from "node:crypto";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import type { Direction } from "../config/words.ts";
import { openEngine } from "../store/postgres/engine.ts";
import { listQuarantine } from "../store/postgres/quarantine.ts";
import { repairKeys } from "./settle.ts";

export interface RetryOptions {
  readonly plan: Plan;
  readonly log: Log;
  readonly direction: Direction;
  readonly epoch: number;
  /** Quarantine ids; undefined: all that are open. */
  readonly ids: readonly string[] | undefined;
}

/** Syncs quarantined keys again; those that go through leave quarantine. Returns how many were tried. */
export async function retryQuarantined(options: RetryOptions): Promise<number> {
  const { plan, direction, epoch, log, ids } = options;
  const engine = await openEngine({
    plan,
    direction,
    epoch,
    role: "retry",
    instance: randomBytes(3).toString("hex"),
  });
  try {
    const rows = (await listQuarantine(engine.context.target, direction)).filter(
      (row) => row.state !== "accepted" && (ids === undefined || ids.includes(row.id)),
    );
    for (const driver of engine.context.compiled.drivers) {
      const keys = rows.filter((row) => row.sourceTable === driver.name).map((row) => row.key);
      await repairKeys(engine.context, driver, keys, log);
    }
    return rows.length;
  } finally {
    await engine.close();
  }
}
