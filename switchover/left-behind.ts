import type { Direction } from "../config/words.ts";
import { addEvent } from "../store/control/history.ts";
import type { TimelineEvent } from "../store/control/history.ts";
import type { Execution } from "./effects.ts";
import type { Engine, QuarantinedKey } from "./engine.ts";

/** A key whose row did not cross, and which way it would have gone. */
export interface KeyLeftBehind extends QuarantinedKey {
  readonly direction: Direction;
}

/** The timeline is no table of rows: of more keys than this, the first are recorded. */
const RECORDED = 1_000;

/** Keys in quarantine: of the active direction, and after a flip those that were left behind on the way there. */
export async function keysLeftBehind(
  engine: Engine,
  active: Direction,
): Promise<readonly KeyLeftBehind[]> {
  const directions: readonly Direction[] =
    active === "forward" ? ["forward"] : ["forward", "reverse"];
  const found = await Promise.all(
    directions.map(async (direction) =>
      (await engine.listQuarantine(direction)).map((key) => ({ ...key, direction })),
    ),
  );
  return found.flat();
}

/** Before `done` removes the quarantine with everything else: what stood in it is for whoever asks later. If that fails, nothing is removed. */
export async function recordLeftBehind(
  { engine, store, by }: Pick<Execution, "engine" | "store" | "by">,
  active: Direction,
): Promise<void> {
  const keys = await keysLeftBehind(engine, active);
  if (keys.length === 0) return;
  const why = `${keys.length} ${keys.length === 1 ? "key" : "keys"} stayed behind`;
  await addEvent(store, {
    kind: "left-behind",
    by,
    detail: { why, keys: keys.slice(0, RECORDED) },
  });
}

/** What `done` recorded; nothing before. */
export function recordedLeftBehind(timeline: readonly TimelineEvent[]): readonly KeyLeftBehind[] {
  const event = timeline.findLast(({ kind }) => kind === "left-behind");
  const keys = event?.detail["keys"];
  return Array.isArray(keys) ? (keys as KeyLeftBehind[]) : [];
}
