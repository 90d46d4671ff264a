import { beforeAll, expect, test } from "vitest";
import { beatSidecar } from "../../store/control/sidecars.ts";
import type { HeldReport } from "../../store/control/sidecars.ts";
import { openFleet } from "../../switchover/fleet.ts";
import { freshStore, openTestListener } from "../support/control.ts";
import { createSingleDatabase } from "../support/databases.ts";

let database: string;

beforeAll(async () => {
  database = await createSingleDatabase();
});

const report = (attempt: number, ...durations_ms: number[]): HeldReport => ({
  pending: null,
  attempt,
  writes: durations_ms.length,
  failed: 0,
  durations_ms,
  max_ms: Math.max(...durations_ms),
});

test("what a flip held is counted when every sidecar has reported it, not when the first words after the release are there", async () => {
  const store = await freshStore(database);
  const fleet = openFleet(store, await openTestListener(store, "controller"));
  const beat = async (id: string, held: HeldReport, holdAttempt?: number) =>
    beatSidecar(store, {
      id,
      epoch: 2,
      holdAttempt,
      inFlightWrites: 0,
      listen: "127.0.0.1:1",
      stats: { held },
    });
  await beat("quick", report(3, 900), 4);
  await beat("slow", report(3, 900), 4);
  let counted: unknown;
  const counting = fleet.heldStats(4).then((stats) => (counted = stats));
  // Nothing is held any more, and the writes that were are not answered yet.
  await beat("quick", report(4, 20, 30));
  for (let again = 0; again < 5; again += 1) {
    await beat("slow", { ...report(3, 900), pending: 4 });
    expect(counted).toBeUndefined();
  }
  await beat("slow", report(4, 80));
  expect(await counting).toMatchObject({ writes_held: 3, hold_ms: { max: 80 }, failed: 0 });
});
