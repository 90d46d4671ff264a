import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { otherSide } from "../../config/words.ts";
import type { Side } from "../../config/words.ts";
import { recover } from "../../switchover/flip-recover.ts";
import { FLIP_STEPS } from "../../switchover/flip-types.ts";
import type { FlipFailpoint } from "../../switchover/flip-types.ts";
import { createDatabasePair, createSingleDatabase } from "../support/databases.ts";
import { flipDeps } from "../support/flip-deps.ts";
import { FlipArena, away } from "../support/flip-arena.ts";

const FAILPOINTS: readonly FlipFailpoint[] = [...FLIP_STEPS, "begin-half", "end-half"];
/** From here on the guard of `from` is closed, so the attempt can only go forward. */
const DECIDED = new Set<FlipFailpoint>(FLIP_STEPS.slice(FLIP_STEPS.indexOf("close")));
DECIDED.add("end-half");

/** Each point away from each side, in the order in which the authority needs the fewest flips to get there. */
function bothWays(points: readonly FlipFailpoint[]): [Side, FlipFailpoint][] {
  const undone = points.filter((at) => !DECIDED.has(at));
  const decided = points.filter((at) => DECIDED.has(at));
  return [
    ...undone.map((at): [Side, FlipFailpoint] => ["old", at]),
    ...decided.flatMap((at): [Side, FlipFailpoint][] => [
      ["old", at],
      ["new", at],
    ]),
    ...undone.map((at): [Side, FlipFailpoint] => ["new", at]),
  ];
}

const RECOVER_FORWARD: readonly FlipFailpoint[] = [
  "raise-half",
  "raise",
  "close-again",
  "arm-again",
  "turn-again",
  "switch-again",
  "open",
  "publish",
  "acknowledge",
  "release",
  "end-half",
  "end",
  "disarm",
];
const RECOVER_BACK: readonly FlipFailpoint[] = [
  "raise-half",
  "raise",
  "undo",
  "end-half",
  "end",
  "disarm",
];

describe.each(["two servers", "one database"])(
  "a controller killed during a flip, on %s",
  (where) => {
    let world: FlipArena;

    beforeAll(async () => {
      if (where === "two servers") {
        world = new FlipArena({
          ...(await createDatabasePair()),
          oldSchema: "public",
          newSchema: "public",
        });
      } else {
        const url = await createSingleDatabase();
        world = new FlipArena({
          oldUrl: url,
          newUrl: url,
          oldSchema: "app_old",
          newSchema: "app_new",
        });
      }
      await world.start();
    });
    afterAll(() => world.stop());

    // In one database the order of the commits is the same; the points around the decision are enough there.
    const points =
      where === "two servers"
        ? FAILPOINTS
        : (["guard", "switch", "close", "decide", "follow", "open"] as const);

    test.each(bothWays(points))(
      "away from %s, killed after %s: the next one ends in one consistent state",
      async (from, at) => {
        await world.authorityIs(from);
        const epoch = (await world.standing()).epoch;
        await world.killed(at, away(from));
        const recovery = await recover(flipDeps(world.config));
        const moved = DECIDED.has(at);
        expect(recovery.authority).toBe(moved ? otherSide(from) : from);
        await world.mustStand(recovery.authority, moved ? epoch + 1 : epoch);
        expect(await recover(flipDeps(world.config))).toMatchObject({
          outcome: "settled",
          attempt: undefined,
        });
      },
    );

    if (where === "two servers") {
      test.each(RECOVER_FORWARD)("a recovery that goes forward, killed after %s", async (at) => {
        const { open, epoch } = await world.standing();
        const from = open[0] ?? "old";
        await world.killed("close", away(from));
        await world.killed(at);
        await recover(flipDeps(world.config));
        await world.mustStand(otherSide(from), epoch + 1);
      });

      test.each(RECOVER_BACK)("a recovery that undoes, killed after %s", async (at) => {
        await world.authorityIs("new");
        const epoch = (await world.standing()).epoch;
        await world.killed("fence", away("new"));
        await world.killed(at);
        await recover(flipDeps(world.config));
        await world.mustStand("new", epoch);
      });
    }

    test("through all of it no acknowledged write was lost", () => world.nothingWasLost());
  },
);
