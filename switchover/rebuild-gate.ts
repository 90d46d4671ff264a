import type { Phase } from "../config/words.ts";
import { phaseIndex } from "../config/words.ts";
import type { DeferredRow } from "../store/control/deferred-objects.ts";
import type { GateResult } from "./gate-facts.ts";

/**
 * The gate after the copy: what was dropped for it is there again. A foreign key that is there but not proven lets verify be entered,
 * which repairs the row it lacks; nobody goes beyond. Undefined: nothing was dropped.
 */
export function rebuildGate(
  phase: Phase,
  deferred: readonly DeferredRow[],
): GateResult | undefined {
  if (deferred.length === 0 || phaseIndex(phase) < phaseIndex("verify") || phase === "done")
    return undefined;
  const open = deferred.filter(
    ({ state }) => state !== "built" && !(phase === "verify" && state === "unproven"),
  );
  const gate = {
    name: "rebuild",
    value: `${deferred.length - open.length} of ${deferred.length}`,
    limit: "all indexes and foreign keys",
  } as const;
  const failed = open.find(({ error }) => error !== undefined);
  if (failed !== undefined) {
    const why = `${failed.kind} ${failed.name} of ${failed.table}: ${failed.error}; it is tried again by itself, or build it yourself under that name`;
    // What verify repaired is proven within seconds.
    const heals = open.some(({ state, error }) => state !== "unproven" && error !== undefined)
      ? "never"
      : "by-waiting";
    return { ...gate, state: "fail", why, heals };
  }
  const [next] = open;
  if (next === undefined)
    return { ...gate, state: "pass", why: "what was dropped for the copy is back", heals: "never" };
  const why = `waits for ${next.kind} ${next.name} of ${next.table}: the backfill role builds it once all rows are copied`;
  return { ...gate, state: "fail", why, heals: "by-waiting" };
}
