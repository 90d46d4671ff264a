import { expect, test } from "vitest";
import { planBackfill } from "../../backfill/plan-chunks.ts";
import { expectEqualRows, openChaosWorld, pause, Writer } from "../support/chaos-world.ts";
import { KillableRole } from "../support/processes.ts";
import { testedFeed } from "../support/tested-feed.ts";
import { Random } from "../../examples/support/random.ts";

/**
 * Invariant (a): random writers during backfill and mirror, both killed by SIGKILL at random moments, end with every
 * row equal. Each seed is a run of its own; CROSSFADE_SEEDS and CROSSFADE_SEED choose others.
 */
const COUNT = Number(process.env["CROSSFADE_SEEDS"] ?? (testedFeed() === "wal" ? 2 : 3));
const FIRST = Number(process.env["CROSSFADE_SEED"] ?? 1);
const SEEDS = Array.from({ length: COUNT }, (_, i) => FIRST + i);

for (const seed of SEEDS) {
  test(`seed ${seed}: random writers, killed mirror and backfill: every row is equal`, async () => {
    const random = new Random(seed);
    const world = await openChaosWorld();
    const { plan, planFile, store, oldUrl } = world;
    const writers = Array.from(
      { length: 3 },
      (_, i) => new Writer(oldUrl, new Random(seed * 1000 + i)),
    );
    const running = writers.map((writer) => writer.run());
    const mirror = new KillableRole("mirror", planFile);
    const backfill = new KillableRole("backfill", planFile);
    try {
      await planBackfill(plan, store, { direction: "forward", epoch: 1 });
      for (let kill = 0; kill < 3; kill += 1) {
        await pause(150 + random.integer(350));
        await (random.chance(0.6) ? mirror : backfill).kill();
      }
      await expectEqualRows(world, async () => {
        for (const writer of writers) writer.stop();
        await Promise.all(running);
      });
      expect(writers.reduce((sum, writer) => sum + writer.committed, 0)).toBeGreaterThan(20);
    } finally {
      for (const writer of writers) writer.stop();
      await Promise.allSettled(running);
      await Promise.all([mirror.stop(), backfill.stop()]);
    }
  });
}
