import { describe, expect, test } from "vitest";
import { flipModel } from "../../switchover/flip/model/model.ts";
import { FLIP_RULES } from "../../switchover/flip/model/rules.ts";
import type { FlipBounds, FlipRule } from "../../switchover/flip/model/rules.ts";
import { explore, tell } from "../support/explore.ts";

const MINUTE = 60_000;
/** `CROSSFADE_DEEP=1 npx vitest run flip-model`: minutes, some GB of memory, and the shortest trace of every violation. */
const DEEP = process.env["CROSSFADE_DEEP"] !== undefined;
const QUICK: FlipBounds = { epochs: 1, writes: 1, accidents: 0 };
const WITH_ACCIDENT: FlipBounds = { ...QUICK, accidents: 1 };
const WITH_RESTORE: FlipBounds = { ...QUICK, restores: "from the start" };
/** There and back; two writers at once; accidents. */
const WHOLE: readonly FlipBounds[] = DEEP
  ? [
      { epochs: 2, writes: 2, accidents: 0 },
      { epochs: 1, writes: 2, accidents: 1 },
      { epochs: 2, writes: 1, accidents: 1 },
      { epochs: 1, writes: 1, accidents: 2 },
      { ...QUICK, restores: "from any time" },
      { ...WITH_RESTORE, epochs: 3 },
      { ...WITH_RESTORE, writes: 2 },
      { ...WITH_RESTORE, accidents: 1 },
    ]
  : [{ ...QUICK, epochs: 2 }, { ...QUICK, writes: 2 }, WITH_ACCIDENT, WITH_RESTORE];

const LOST = "loses a write";
const TWO = "has two authorities";
const UNDONE = "calls an attempt undone whose guard is closed";
const HANGS = "hangs for ever";
const BESIDE = "syncs to a side that is written to";

/** What goes wrong first without each rule, and whether it takes an accident. */
const WITHOUT: Readonly<Record<FlipRule, readonly [what: string, bounds: FlipBounds]>> = {
  "a step is made for the newest attempt": [UNDONE, QUICK],
  "lock and check are one": [UNDONE, QUICK],
  "an attempt of both sides, or nothing, is raised": [UNDONE, QUICK],
  "a recovery raises before it reads": [UNDONE, QUICK],
  "a raise is flushed": [LOST, WITH_ACCIDENT],
  "epochs are set, not incremented": ["has an epoch that nobody decided on", QUICK],
  "the guard's state is seen whatever the snapshot": [LOST, QUICK],
  "a writer locks before it reads the guard": [LOST, QUICK],
  "the guard's lock waits for writers": [LOST, QUICK],
  "the guard's lock is held until the decision": [LOST, QUICK],
  "the follower stays armed": [LOST, QUICK],
  "armed tables are checked under the lock": [LOST, WITH_ACCIDENT],
  "the guard is closed in the transaction that holds its lock": [LOST, QUICK],
  "the fence is written under the lock": [LOST, QUICK],
  "the mirror passes the fence": [LOST, QUICK],
  "the switch waits for syncs": [LOST, QUICK],
  "a sync checks the epoch": [LOST, QUICK],
  "a sync checks under the lock": [LOST, QUICK],
  "the authority commits first": [LOST, WITH_ACCIDENT],
  "the decision is flushed": [TWO, WITH_ACCIDENT],
  "the follower opens in a transaction of its own": [TWO, QUICK],
  "no undo opens a guard": [TWO, QUICK],
  "a recovery closes again": [BESIDE, WITH_RESTORE],
  "a disarm needs the newest ended attempt and an open guard": [LOST, QUICK],
  "transactions before the decision time out": [HANGS, WITH_ACCIDENT],
  "a side is closed again once its writers are done": [
    BESIDE,
    { ...QUICK, restores: "armed, from the start" },
  ],
  "a side is armed again before it turns": [BESIDE, WITH_RESTORE],
  "a fence counts in its own epoch": [LOST, { ...WITH_RESTORE, epochs: 3 }],
};

describe("the flip protocol, every behaviour of it", () => {
  test.each(WHOLE)(
    "loses no write, has one authority, and ends: $epochs flips, $writes writes, $accidents accidents, a restore $restores",
    (bounds) => {
      const found = explore(flipModel(bounds));
      if (DEEP) tell(JSON.stringify(bounds), found);
      expect(found.violation).toBeUndefined();
      // A model in which nothing can happen is right too.
      expect(found.states).toBeGreaterThan(10_000);
    },
    10 * MINUTE,
  );

  test.each(FLIP_RULES)(
    "goes wrong without this rule: %s",
    (rule) => {
      const [what, bounds] = WITHOUT[rule];
      const found = explore(flipModel(bounds, rule));
      if (DEEP) tell(rule, found);
      expect(found.violation?.what).toBe(what);
    },
    MINUTE,
  );
});
