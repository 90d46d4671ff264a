/** The rules of ../SPEC.md that the model knows. Each can be left out, to see what goes wrong without it. */
export const FLIP_RULES = [
  "a step is made for the newest attempt",
  "lock and check are one",
  "an attempt of both sides, or nothing, is raised",
  "a recovery raises before it reads",
  "a raise is flushed",
  "epochs are set, not incremented",
  "the guard's state is seen whatever the snapshot",
  "a writer locks before it reads the guard",
  "the guard's lock waits for writers",
  "the guard's lock is held until the decision",
  "the follower stays armed",
  "armed tables are checked under the lock",
  "the guard is closed in the transaction that holds its lock",
  "the fence is written under the lock",
  "the mirror passes the fence",
  "the switch waits for syncs",
  "a sync checks the epoch",
  "a sync checks under the lock",
  "the authority commits first",
  "the decision is flushed",
  "the follower opens in a transaction of its own",
  "no undo opens a guard",
  "a recovery closes again",
  "a disarm needs the newest ended attempt and an open guard",
  "transactions before the decision time out",
  "a side is closed again once its writers are done",
  "a side is armed again before it turns",
  "a fence counts in its own epoch",
] as const;
export type FlipRule = (typeof FLIP_RULES)[number];

/** How far the model goes: every behaviour within these is looked at. */
export interface FlipBounds {
  /** How often the authority moves. */
  readonly epochs: number;
  readonly writes: number;
  /** Controllers that die or freeze, servers that crash, tables that lose their trigger: all together. */
  readonly accidents: number;
  /**
   * Once, the closed side is set back to a backup: of the old side as it was at first (or would have been around a flip, armed), or of
   * either side from any time before.
   */
  readonly restores?: "from the start" | "armed, from the start" | "from any time";
}
