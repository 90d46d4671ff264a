import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { otherSide } from "../../config/words.ts";
import { recover } from "../../switchover/flip-recover.ts";
import { FLIP_STEPS } from "../../switchover/flip-types.ts";
import type { FlipFailpoint } from "../../switchover/flip-types.ts";
import { runFlip } from "../../switchover/flip.ts";
import { createDatabasePair } from "../support/databases.ts";
import { FlipArena, away } from "../support/flip-arena.ts";
import { flipDeps } from "../support/flip-deps.ts";

const FAILPOINTS: readonly FlipFailpoint[] = [...FLIP_STEPS, "begin-half", "end-half"];
const DECIDED = new Set<FlipFailpoint>(FLIP_STEPS.slice(FLIP_STEPS.indexOf("close")));
DECIDED.add("end-half");
/** At these the attempt has ended on both sides: nobody has to take over, and it ends as it would have. */
const ENDED = new Set<FlipFailpoint>(["end", "disarm"]);
const BUDGET_MS = 600;

/** Away from wherever the authority has come to by the tests before: from both sides, without flips for that alone. */
describe("a controller paused during a flip, and resumed when others have taken over", () => {
  let world: FlipArena;

  beforeAll(async () => {
    world = new FlipArena({
      ...(await createDatabasePair()),
      oldSchema: "public",
      newSchema: "public",
    });
    await world.start();
  });
  afterAll(() => world.stop());

  test.each(FAILPOINTS)(
    "paused after %s: others recover; what it does when it wakes changes nothing",
    async (at) => {
      const { epoch, open } = await world.standing();
      const from = open[0] ?? "old";
      const child = await world.paused(at, away(from, BUDGET_MS));
      try {
        const { authority } = await recover(flipDeps(world.config));
        expect(authority).toBe(DECIDED.has(at) ? otherSide(from) : from);
        await world.mustStand(authority, DECIDED.has(at) ? epoch + 1 : epoch);
        const before = await world.standing();
        child.goOn();
        expect(await child.ended()).toBeUndefined();
        if (!ENDED.has(at)) expect(child.output).toMatchObject({ code: "STALE" });
        expect(await world.standing()).toEqual(before);
        await world.mustStand(authority, before.epoch);
      } finally {
        child.kill();
      }
    },
  );

  test.each(FAILPOINTS)(
    "paused after %s: others recover and flip on before it wakes",
    async (at) => {
      const from = (await world.standing()).open[0] ?? "old";
      const child = await world.paused(at, away(from, BUDGET_MS));
      try {
        const { authority } = await recover(flipDeps(world.config));
        expect(authority).toBe(DECIDED.has(at) ? otherSide(from) : from);
        expect(await runFlip(flipDeps(world.config), away(authority))).toMatchObject({ ok: true });
        const before = await world.standing();
        child.goOn();
        expect(await child.ended()).toBeUndefined();
        expect(await world.standing()).toEqual(before);
        await world.mustStand(otherSide(authority), before.epoch);
      } finally {
        child.kill();
      }
    },
  );

  test("through all of it no acknowledged write was lost", () => world.nothingWasLost());
});
