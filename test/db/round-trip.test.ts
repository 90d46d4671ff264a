import { expect, test } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { readEvents } from "../../store/control/history.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { lastRoundTrip, lastVerifyRun } from "../../store/control/verify-runs.ts";
import {
  ask,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";
import { mapping } from "../support/sync-world.ts";

/** Titles are made in capitals, and old keeps them as they are: what is written small on new does not come back so. */
async function shoutingPlan(): Promise<{ plan: Plan; store: ControlStore }> {
  const plan = await itemsPlan({
    gates: {
      verifyMaxAgeMs: 600_000,
      lagMs: 5_000,
      shadow: { samples: 0, mismatch: 1 },
      canary: { samples: 0, errors: 1, p99: 10 },
    },
    shadow: { sample: 0, ignore: [], unordered: [], redact: [] },
    forward: {
      kind: "tables",
      mappings: [mapping("items", "items", { set: new Map([["title", "upper(name)"]]) })],
    },
    reverse: {
      kind: "tables",
      mappings: [
        mapping("items", "items", {
          set: new Map([["name", "title"]]),
          where: "note is distinct from 'new only'",
        }),
      ],
    },
  });
  await sql(plan, "old", "update items set name = upper(name)");
  const { store } = await startController(plan);
  runWorkers(plan);
  runSidecar(plan, "s1");
  return { plan, store };
}

async function sql(plan: Plan, side: "old" | "new", text: string): Promise<void> {
  await withClient(plan[side].database, (client) => client.query(text));
}

test("rows of new that would not come back as they are: listed by verify, and a rollback needs a word for them", async () => {
  const { plan, store } = await shoutingPlan();
  await ask(plan, "advance", { to: "write-new", wait: true });
  const proved = (await ask(plan, "verify")) as { run: unknown };
  expect(proved.run).toMatchObject({
    state: "clean",
    roundTrip: { compared: 120, failed: 0, error: null, examples: [] },
  });
  await sql(plan, "new", "update items set title = 'small' where id = 7");
  await sql(plan, "new", "insert into items (id, title, note) values (900, 'ONLY', 'new only')");
  await sql(plan, "new", "update items set title = 'STILL FINE' where id = 8");
  await ask(plan, "verify");
  const found = (await lastVerifyRun(store, "reverse"))?.roundTrip;
  expect(found).toMatchObject({ compared: 120, failed: 2, error: null });
  expect(found?.examples).toEqual([
    {
      table: "items",
      kind: "different",
      key: { mapping: "test.items", id: "7" },
      columns: { title: { expected: "SMALL", found: "small" } },
    },
    { table: "items", kind: "extra", key: { id: "900" } },
  ]);

  await expect(ask(plan, "rollback", { to: "shadow" })).rejects.toMatchObject({
    code: "REFUSED",
    gates: expect.arrayContaining([
      expect.objectContaining({ name: "round-trip", state: "fail", value: "2 rows" }),
    ]) as unknown,
  });
  expect(await ask(plan, "rollback", { to: "shadow", acceptRoundTrip: true })).toMatchObject({
    phase: "shadow",
  });
  const phases = (await readEvents(store)).filter(({ kind }) => kind === "phase");
  expect(phases.at(-1)?.detail).toMatchObject({
    from: "read-new",
    to: "shadow",
    gates: expect.arrayContaining([
      expect.objectContaining({ name: "round-trip", state: "pass" }),
    ]) as unknown,
  });
  // Of another epoch: it says nothing about the next time.
  expect(await lastRoundTrip(store, 99)).toBeUndefined();
});
