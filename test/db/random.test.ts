import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { Random } from "../../examples/support/random.ts";
import { CuttableProxy } from "../support/cuttable-proxy.ts";
import { createDatabasePair, type DatabasePair, withClient } from "../support/databases.ts";
import { runScenario } from "../support/random-run.ts";
import { scenario } from "../support/random-scenario.ts";

/**
 * Random tables, mappings and transactions, passes and chunks at once, sessions ended and lines cut in the middle: in
 * the end every target table is what plain SQL makes of the source. Each seed is a test of its own;
 * CROSSFADE_SEEDS and CROSSFADE_SEED choose others.
 */
const COUNT = Number(process.env["CROSSFADE_SEEDS"] ?? 20);
const FIRST = Number(process.env["CROSSFADE_SEED"] ?? 1);
/** Seeds that found something once. */
const KEPT: readonly number[] = [];
const SEEDS = [...new Set([...KEPT, ...Array.from({ length: COUNT }, (_, i) => FIRST + i)])];

let pair: DatabasePair;
beforeAll(async () => {
  pair = await createDatabasePair();
  for (const url of [pair.oldUrl, pair.newUrl])
    await withClient(url, (client) => client.query("create extension hstore"));
});

for (const seed of SEEDS) {
  const direction = seed % 2 === 0 ? "forward" : "reverse";
  test(`seed ${seed}, ${direction}: every row is what plain SQL makes of the source`, async () => {
    const [drawn] = fc.sample(scenario, { seed, numRuns: 1 });
    if (drawn === undefined) throw new Error("nothing was drawn");
    const line = (url: string) =>
      CuttableProxy.open({ host: "127.0.0.1", port: Number(new URL(url).port) });
    const lines = { old: await line(pair.oldUrl), new: await line(pair.newUrl) };
    const result = await runScenario({
      place: { ...pair, lines },
      direction,
      scenario: drawn,
      random: new Random(seed),
      schema: `s${seed}`,
    });
    expect(result.quarantine).toEqual([]);
    for (const { table, found, expected, atLeast } of result.tables) {
      if (atLeast) expect(found, table).toEqual(expect.arrayContaining([...new Set(expected)]));
      else expect(found, table).toEqual(expected);
    }
    expect(result.differences).toEqual([]);
  });
}
