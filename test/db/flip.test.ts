import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { otherSide } from "../../config/words.ts";
import type { Side } from "../../config/words.ts";
import { recover } from "../../switchover/flip-recover.ts";
import { runFlip } from "../../switchover/flip.ts";
import type { AttemptKind } from "../../store/postgres/state.ts";
import { createDatabasePair, createSingleDatabase } from "../support/databases.ts";
import { flipDeps, openApp, withApp } from "../support/flip-deps.ts";
import { TestMirror, contents, installFlipWorld, standing } from "../support/flip-world.ts";
import type { FlipConfig } from "../support/flip-deps.ts";
import { Writers } from "../support/flip-writers.ts";

const request = (kind: AttemptKind, from: Side, budgetMs = 20_000) => ({
  kind,
  from,
  to: otherSide(from),
  by: "test",
  budgetMs,
});

/** The authority is `side`, its guard off, the other side's closed and armed, both sides agreeing. */
function settledOn(side: Side, epoch: number) {
  return {
    direction: side === "old" ? "forward" : "reverse",
    epoch,
    open: [side],
    ended: true,
    armed: [otherSide(side)],
    published: { side, epoch },
  };
}

async function untilEqual(config: FlipConfig): Promise<string[]> {
  await expect
    .poll(
      async () =>
        (await contents(config, "old")).join("\n") === (await contents(config, "new")).join("\n"),
    )
    .toBe(true);
  return contents(config, "old");
}

async function twoServers(): Promise<FlipConfig> {
  return { ...(await createDatabasePair()), oldSchema: "public", newSchema: "public" };
}

async function oneDatabase(): Promise<FlipConfig> {
  const url = await createSingleDatabase();
  return { oldUrl: url, newUrl: url, oldSchema: "app_old", newSchema: "app_new" };
}

describe.each([
  ["two servers", twoServers],
  ["one database", oneDatabase],
])("flips on %s", (where, make) => {
  let config: FlipConfig;
  let mirror: TestMirror;

  beforeAll(async () => {
    config = await make();
    await installFlipWorld(config);
    mirror = new TestMirror(config);
    mirror.start();
  });
  afterAll(() => mirror.stop());

  test("forth and back under writers that bypass every sidecar: nothing lost, nothing twice", async () => {
    const writers = new Writers(config);
    writers.start(4);
    await writers.progress(50);
    const steps: string[] = [];
    const receipt = await runFlip(
      flipDeps(config, { onStep: ({ name }) => steps.push(name) }),
      request("flip", "old"),
    );
    expect(receipt).toMatchObject({
      kind: "flip",
      ok: true,
      from: "old",
      to: "new",
      epoch: 2,
      why: null,
    });
    expect(receipt.steps.map(({ name }) => name)).toEqual(steps);
    await writers.progress(50);
    expect(await standing(config)).toMatchObject(settledOn("new", 2));

    expect(await runFlip(flipDeps(config), request("rollback", "new"))).toMatchObject({
      ok: true,
      epoch: 3,
      why: null,
    });
    await writers.progress(50);
    await writers.stop();
    expect(await standing(config)).toMatchObject(settledOn("old", 3));
    expect(writers.errors).toEqual([]);
    const rows = new Set(await untilEqual(config));
    const expected = writers.acknowledged.map(({ id, v }) => `items (${id},${v})`);
    expect(expected.filter((row) => !rows.has(row))).toEqual([]);
    expect(rows.size).toBe(writers.acknowledged.length);
    for (const v of writers.refused)
      expect([...rows].some((row) => row.endsWith(`,${v})`))).toBe(false);
  });

  test("a drill does all but decide, and leaves everything as before", async () => {
    const before = await standing(config);
    const writers = new Writers(config);
    writers.start(3);
    await writers.progress(20);
    const receipt = await runFlip(flipDeps(config), request("drill", "old"));
    await writers.progress(20);
    await writers.stop();
    expect(receipt).toMatchObject({ kind: "drill", ok: true, epoch: before.epoch, why: null });
    expect(receipt.steps.map(({ name }) => name)).toContain("switch");
    expect(receipt.steps.map(({ name }) => name)).not.toContain("close");
    expect(writers.errors).toEqual([]);
    expect(writers.refused).toEqual([]);
    expect({ ...(await standing(config)), attempts: [] }).toEqual({ ...before, attempts: [] });
    await untilEqual(config);
  });

  test("with a transaction that stays open the flip gives up within its budget and nobody sees an error", async () => {
    const before = await standing(config);
    const writers = new Writers(config);
    const holder = await openApp(config, "old");
    writers.start(3);
    await writers.progress(20);
    const deps = flipDeps(config, {
      failpoint: async (name) => {
        // After arming: it holds the guard's lock shared, and is refused nothing.
        if (name === "lag") await holder.query("begin; insert into items (v) values ('held open')");
      },
    });
    const receipt = await runFlip(deps, request("flip", "old", 600));
    expect(receipt).toMatchObject({ ok: false, epoch: before.epoch });
    expect(receipt.why).toMatch(/held open|idle in transaction/);
    // The guard comes off the tables when the transaction lets it.
    expect(await standing(config)).toMatchObject({
      open: ["old"],
      ended: true,
      armed: ["old", "new"],
    });
    await holder.query("commit");
    await holder.end();
    await writers.progress(20);
    expect(await recover(flipDeps(config))).toMatchObject({ outcome: "settled", authority: "old" });
    await writers.stop();
    expect(writers.errors).toEqual([]);
    expect(writers.refused).toEqual([]);
    expect({ ...(await standing(config)), attempts: [] }).toEqual({ ...before, attempts: [] });
    expect((await untilEqual(config)).some((row) => row.endsWith(`"held open")`))).toBe(true);
  });

  test("a transaction that wrote before arming delays only the preparation, and is named", async () => {
    const before = await standing(config);
    const holder = await openApp(config, "old");
    await holder.query("begin; insert into items (v) values ('early')");
    const receipt = await runFlip(
      flipDeps(config, { limits: { prepareMs: 300 } }),
      request("flip", "old"),
    );
    expect(receipt).toMatchObject({ ok: false });
    expect(receipt.why).toMatch(/could not arm .*items.* in time: pid \d+ .*early/);
    await holder.query("rollback");
    await holder.end();
    expect({ ...(await standing(config)), attempts: [] }).toEqual({ ...before, attempts: [] });
  });

  test("a transaction that wrote after the arming and idles is waited for before the hold, or named; nothing was held", async () => {
    const before = await standing(config);
    const holder = await openApp(config, "old");
    let holds = 0;
    const counted = {
      ...flipDeps(config).fleet,
      hold: async () => {
        holds += 1;
        return { missing: [] };
      },
    };
    const idle = async (name: string) => {
      if (name !== "arm") return;
      await holder.query("begin; insert into items (v) values ('idle')");
      // A quarter of the budget: a younger one may still end in time.
      await sleep(150);
    };
    const deps = flipDeps(config, {
      fleet: counted,
      failpoint: idle,
      limits: { prepareMs: 1_000 },
    });
    const receipt = await runFlip(deps, request("flip", "old", 400));
    expect(receipt).toMatchObject({ ok: false });
    expect(receipt.why).toMatch(/stay open on the old side: pid \d+ .*idle in transaction.*idle/);
    expect(holds).toBe(0);
    await holder.query("rollback");
    // One that ends in time costs the preparation that time, and nothing else.
    const ends = flipDeps(config, {
      fleet: counted,
      failpoint: async (name) => {
        await idle(name);
        if (name === "sequences") setTimeout(() => void holder.query("rollback"), 1_000);
      },
    });
    expect(await runFlip(ends, request("drill", "old", 600))).toMatchObject({ ok: true });
    expect(holds).toBe(1);
    await holder.end();
    await recover(flipDeps(config));
    expect({ ...(await standing(config)), attempts: [] }).toEqual({ ...before, attempts: [] });
  });

  test("DDL that has not committed delays only the preparation, and is named; writes go on meanwhile", async () => {
    const before = await standing(config);
    const writers = new Writers(config);
    const ddl = await openApp(config, "old");
    // As VALIDATE CONSTRAINT, CREATE INDEX CONCURRENTLY and ANALYZE do, it lets writers pass but no change of a trigger.
    await ddl.query("begin; alter table items set (fillfactor = 90)");
    writers.start(3);
    const receipt = await runFlip(
      flipDeps(config, { limits: { prepareMs: 500 } }),
      request("flip", "old"),
    );
    expect(receipt).toMatchObject({ ok: false });
    expect(receipt.why).toMatch(/could not arm .*items.* in time: pid \d+ .*fillfactor/);
    await writers.progress(20);
    await ddl.query("rollback");
    await ddl.end();
    await writers.stop();
    expect([writers.errors, writers.refused]).toEqual([[], []]);
    await recover(flipDeps(config));
    expect({ ...(await standing(config)), attempts: [] }).toEqual({ ...before, attempts: [] });
    await untilEqual(config);
  });

  test("an unknown lag, a sidecar that does not hold, a failing hold: each undoes with its reason", async () => {
    const before = await standing(config);
    const { fleet } = flipDeps(config);
    const cases = [
      [
        flipDeps(config, { lag: async () => undefined, limits: { prepareMs: 500 } }),
        /lag is unknown/,
      ],
      [
        flipDeps(config, { fleet: { ...fleet, hold: async () => ({ missing: ["sidecar-7"] }) } }),
        /sidecar-7/,
      ],
      [
        flipDeps(config, {
          fleet: { ...fleet, hold: () => Promise.reject(new Error("control store away")) },
        }),
        /control store away/,
      ],
    ] as const;
    for (const [deps, why] of cases) {
      const receipt = await runFlip(deps, request("flip", "old"));
      expect(receipt.ok).toBe(false);
      expect(receipt.why).toMatch(why);
    }
    expect({ ...(await standing(config)), attempts: [] }).toEqual({ ...before, attempts: [] });
  });

  test.runIf(where === "two servers")(
    "called off, an attempt is undone wherever it is or waits; once it closes the guard it goes through",
    async () => {
      const before = await standing(config);
      const calledOffAt = (at: string) => {
        const abort = new AbortController();
        const failpoint = async (name: string) => {
          if (name === at) abort.abort(new Error("something else was asked for"));
        };
        return flipDeps(config, { calledOff: abort.signal, failpoint });
      };
      const undone = { ok: false, why: "something else was asked for" };
      expect(await runFlip(calledOffAt("switch"), request("flip", "old"))).toMatchObject(undone);
      // Waiting for a lock: it would for a minute.
      const holder = await openApp(config, "old");
      await holder.query("begin; insert into items (v) values ('in the way')");
      expect(await runFlip(calledOffAt("feeds"), request("flip", "old"))).toMatchObject(undone);
      await holder.query("rollback");
      await holder.end();
      expect({ ...(await standing(config)), attempts: [] }).toEqual({ ...before, attempts: [] });

      expect(await runFlip(calledOffAt("close"), request("flip", "old"))).toMatchObject({
        ok: true,
      });
      expect(await runFlip(flipDeps(config), request("rollback", "new"))).toMatchObject({
        ok: true,
      });
      expect(await standing(config)).toMatchObject(settledOn("old", before.epoch + 2));
    },
  );

  test("a side that is not the authority cannot be flipped from", async () => {
    await expect(runFlip(flipDeps(config), request("flip", "new"))).rejects.toMatchObject({
      code: "REFUSED",
    });
  });

  test.each([
    [
      "a table whose guard was disabled",
      "alter table notes disable trigger crossfade_guard",
      "notes",
      "",
    ],
    [
      "a table that was added below one",
      "create table more () inherits (notes)",
      "more",
      "drop table more",
    ],
  ])("%s behind our back stops the flip", async (_, change, table, undo) => {
    const onOld = (text: string) => withApp(config, "old", (client) => client.query(text));
    const deps = flipDeps(config, {
      failpoint: async (name) => {
        if (name === "lag") await onOld(change);
      },
    });
    const receipt = await runFlip(deps, request("flip", "old"));
    await onOld(undo);
    expect(receipt.ok).toBe(false);
    expect(receipt.why).toMatch(new RegExp(`without an armed guard: .*${table}`));
  });
});
