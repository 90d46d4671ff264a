import { expect, test } from "vitest";
import { planBackfill } from "../../backfill/plan-chunks.ts";
import { readWorkers } from "../../store/control/workers.ts";
import { expectEqualRows, openChaosWorld, pause, Writer } from "../support/chaos-world.ts";
import { KillableRole } from "../support/processes.ts";
import { Random } from "../../examples/support/random.ts";
import { testedFeed } from "../support/tested-feed.ts";

/** Invariant (i): a mirror and a backfill paused by SIGSTOP, resumed after others took over, change nothing they should not. */
for (const seed of testedFeed() === "wal" ? [1] : [1, 2]) {
  test(`seed ${seed}: a mirror and a backfill that sleep through a takeover do no harm`, async () => {
    const random = new Random(seed);
    const world = await openChaosWorld();
    const { plan, planFile, store, oldUrl } = world;
    const writers = Array.from(
      { length: 2 },
      (_, i) => new Writer(oldUrl, new Random(seed * 77 + i)),
    );
    const running = writers.map((writer) => writer.run());
    const mirrors = [new KillableRole("mirror", planFile)];
    const copiers = [new KillableRole("backfill", planFile)];
    /** Ids of the mirrors that follow and are alive. */
    const followers = async () =>
      (await readWorkers(store, "mirror"))
        .filter((worker) => worker.stats.state === "running" && worker.seenMs < 2_000)
        .map((worker) => worker.id);
    try {
      await expect.poll(followers, { timeout: 20_000 }).toHaveLength(1);
      const [first] = await followers();
      await planBackfill(plan, store, { direction: "forward", epoch: 1 });
      await pause(100 + random.integer(300));
      mirrors[0]?.signal("SIGSTOP");
      copiers[0]?.signal("SIGSTOP");
      mirrors.push(new KillableRole("mirror", planFile));
      copiers.push(new KillableRole("backfill", planFile));
      await expect
        .poll(async () => (await followers()).filter((id) => id !== first), { timeout: 40_000 })
        .toHaveLength(1);
      await pause(random.integer(500));
      mirrors[0]?.signal("SIGCONT");
      copiers[0]?.signal("SIGCONT");
      await pause(500 + random.integer(500));
      await expectEqualRows(world, async () => {
        for (const writer of writers) writer.stop();
        await Promise.all(running);
      });
    } finally {
      for (const writer of writers) writer.stop();
      await Promise.allSettled(running);
      await Promise.all([...mirrors, ...copiers].map((role) => role.stop()));
    }
  });
}
