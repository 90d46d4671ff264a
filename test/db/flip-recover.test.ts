import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { CrossfadeError } from "../../config/errors.ts";
import type { Direction, Side } from "../../config/words.ts";
import { compilePlan } from "../../store/postgres/engine.ts";
import { findGap } from "../../store/postgres/identity.ts";
import { closeSession } from "../../store/postgres/session.ts";
import type { StateRow } from "../../store/postgres/state.ts";
import { examine, isDecided } from "../../switchover/flip-decide.ts";
import type { Facts } from "../../switchover/flip-decide.ts";
import { recover, sidesAgree } from "../../switchover/flip-recover.ts";
import { runFlip } from "../../switchover/flip.ts";
import type { FlipDeps, FlipFailpoint } from "../../switchover/flip-types.ts";
import { createDatabasePair } from "../support/databases.ts";
import { FlipArena, away } from "../support/flip-arena.ts";
import { acknowledgedBut, flipDeps, openApp, withApp } from "../support/flip-deps.ts";
import { flipPlan, standing } from "../support/flip-world.ts";

/** `forward:1 #4 open` as facts of a side; `!` = the attempt (flip from old to new, epoch 2) runs. */
function facts(old: string, next: string): Facts {
  const read = (side: Side, text: string) => {
    const [active = "", number = "", guard] = text.split(" ");
    const [direction, epoch] = active.split(":");
    const attempt = Number.parseInt(number.slice(1), 10);
    const row: StateRow = {
      side,
      plan: "test",
      direction: direction as Direction,
      epoch: Number(epoch),
      attempt,
      last:
        attempt === 0
          ? undefined
          : { number: attempt, kind: "flip", from: "old", to: "new", epoch: 2 },
      ended: !number.endsWith("!"),
    };
    return { row, closed: guard === "closed" };
  };
  return { old: read("old", old), new: read("new", next) };
}

describe("what the state rows and guards say", () => {
  test.each([
    [
      "in order",
      "forward:1 #0 open",
      "forward:1 #0 closed",
      { kind: "settled", authority: "old", epoch: 1, attempt: 0 },
    ],
    [
      "in order the other way",
      "reverse:2 #3 closed",
      "reverse:2 #3 open",
      { kind: "settled", authority: "new", epoch: 2, attempt: 3 },
    ],
    [
      "written on one side only",
      "forward:1 #4! open",
      "forward:1 #3 closed",
      { attempt: { number: 5, from: "old", to: "new", epoch: 2 } },
    ],
    [
      "running on both",
      "forward:1 #4! open",
      "forward:1 #4! closed",
      { attempt: { number: 5, to: "new", epoch: 2 } },
    ],
    [
      "ended on one side only",
      "reverse:2 #4 closed",
      "reverse:2 #4! open",
      { attempt: { number: 5, to: "new", epoch: 2 } },
    ],
    [
      "the old side restored from before the flip",
      "forward:1 #2 open",
      "reverse:2 #4 open",
      { attempt: { number: 5, from: "old", to: "new", epoch: 2 } },
    ],
    [
      "the new side restored from before a rollback",
      "forward:3 #6 open",
      "reverse:2 #4 open",
      { attempt: { number: 7, from: "new", to: "old", epoch: 3 } },
    ],
    [
      "nobody takes writes",
      "forward:1 #4 closed",
      "forward:1 #4 closed",
      { attempt: { number: 5, from: "new", to: "old", epoch: 1 } },
    ],
    [
      "both take writes",
      "forward:1 #4 open",
      "forward:1 #4 open",
      { attempt: { number: 5, from: "new", to: "old", epoch: 1 } },
    ],
  ])("%s", (_, old, next, expected) => {
    expect(examine(facts(old, next))).toMatchObject(expected);
  });

  test("rows that contradict each other are nobody's to guess", () => {
    expect(() => examine(facts("forward:2 #4 open", "reverse:2 #4 open"))).toThrow(CrossfadeError);
  });

  const attempt = { number: 5, kind: "flip", from: "old", to: "new", epoch: 2 } as const;
  test.each([
    ["nothing was closed", "forward:1 #5! open", "forward:1 #5! closed", false],
    [
      "closed, and the transaction rolled back",
      "forward:1 #5! closed",
      "forward:1 #5! closed",
      true,
    ],
    ["closed and committed", "reverse:2 #5! closed", "forward:1 #5! closed", true],
    [
      "a failover lost the close, the other side has it",
      "forward:1 #5! open",
      "reverse:2 #5! open",
      true,
    ],
  ])("decided? %s", (_, old, next, expected) => {
    expect(isDecided(attempt, facts(old, next))).toBe(expected);
  });
});

describe("what happens around the decision", () => {
  let world: FlipArena;
  let epoch: number;

  beforeAll(async () => {
    world = new FlipArena({
      ...(await createDatabasePair()),
      oldSchema: "public",
      newSchema: "public",
    });
    await world.start();
  });
  beforeEach(async () => {
    await world.authorityIs("old");
    epoch = (await world.standing()).epoch;
  });
  afterAll(() => world.stop());

  /** Ends the flip's own sessions on a side, as a failover or an administrator would. */
  const endSessions = (side: Side) =>
    withApp(world.config, side, (client) =>
      client.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'crossfade control flip%' and datname = current_database()",
      ),
    );
  const deps = (rest: Partial<FlipDeps> = {}) => flipDeps(world.config, rest);
  const at =
    (wanted: FlipFailpoint, work: () => Promise<unknown>) => async (name: FlipFailpoint) => {
      if (name === wanted) await work();
    };

  test.each([
    ["guard", "old", false],
    ["switch", "new", false],
    ["close", "old", true],
    ["decide", "new", true],
  ] as const)(
    "the session lost after %s on the %s side: moved = %s, by the same controller",
    async (step, side, moved) => {
      const receipt = await runFlip(
        deps({ failpoint: at(step, () => endSessions(side)) }),
        away("old"),
      );
      expect(receipt).toMatchObject({ ok: moved, epoch: moved ? epoch + 1 : epoch });
      expect(receipt.why).not.toBeNull();
      await world.mustStand(moved ? "new" : "old", moved ? epoch + 1 : epoch);
    },
  );

  test("the new database gone between decision and opening: it keeps trying, and goes on when it is back", async () => {
    let tries = 0;
    let down = false;
    const real = deps().sides;
    const sides = {
      old: real.old,
      get new() {
        if (!down) return real.new;
        tries += 1;
        if (tries === 3) down = false;
        return { ...real.new, url: "postgres://nobody@127.0.0.1:1/gone" };
      },
    };
    const failpoint = at("decide", async () => {
      await endSessions("new");
      down = true;
    });
    expect(await runFlip(deps({ sides, failpoint }), away("old"))).toMatchObject({
      ok: true,
      epoch: epoch + 1,
    });
    expect(tries).toBe(3);
    await world.mustStand("new", epoch + 1);
  });

  test("told to stop there, it says so, and a recovery that reaches one database only does nothing", async () => {
    const stop = new AbortController();
    const real = deps().sides;
    let down = false;
    const sides = {
      old: real.old,
      get new() {
        return down ? { ...real.new, url: "postgres://nobody@127.0.0.1:1/gone" } : real.new;
      },
    };
    const failpoint = at("decide", async () => {
      await endSessions("new");
      down = true;
      stop.abort();
    });
    await expect(
      runFlip(deps({ sides, failpoint, signal: stop.signal }), away("old")),
    ).rejects.toMatchObject({ code: "FLIP_UNKNOWN" });
    const attemptOnOld = () =>
      withApp(
        world.config,
        "old",
        async (client) =>
          (await client.query("select attempt from crossfade.state")).rows[0].attempt,
      );
    const before = await attemptOnOld();
    await expect(recover(deps({ sides }))).rejects.toMatchObject({ code: "DATABASE_UNREACHABLE" });
    expect(await attemptOnOld()).toBe(before);
    down = false;
    await expect(runFlip(deps(), away("new"))).rejects.toMatchObject({ code: "REFUSED" });
    expect(await sidesAgree(deps())).toBe(false);
    expect(await recover(deps({ sides }))).toMatchObject({
      outcome: "completed",
      authority: "new",
      epoch: epoch + 1,
    });
    await world.mustStand("new", epoch + 1);
  });

  test("a control store that fails, and sidecars that do not answer, do not keep a decided flip from its end", async () => {
    const { fleet } = deps();
    let failures = 3;
    const stubborn: FlipDeps["fleet"] = {
      ...fleet,
      publish: async (...args) => {
        if (failures-- > 0) throw new CrossfadeError("STALE", "the migration row moved on");
        await fleet.publish(...args);
      },
      listenForEpoch: () => acknowledgedBut(["sidecar-3"]),
      release: () => Promise.reject(new Error("away")),
      heldStats: () => Promise.reject(new Error("away")),
    };
    const receipt = await runFlip(deps({ fleet: stubborn }), away("old"));
    expect(receipt).toMatchObject({
      ok: true,
      epoch: epoch + 1,
      writes_held: null,
      hold_ms: null,
      failed: null,
    });
    await world.mustStand("new", epoch + 1);
  });

  test("a STALE that is not about the attempt undoes it like any other failure", async () => {
    const { fleet } = deps();
    const hold = () => Promise.reject(new CrossfadeError("STALE", "the migration row moved on"));
    expect(await runFlip(deps({ fleet: { ...fleet, hold } }), away("old"))).toMatchObject({
      ok: false,
      epoch,
      why: "the migration row moved on",
    });
    await world.mustStand("old", epoch);
  });

  test("where all is in order it still sees to the triggers", async () => {
    await withApp(world.config, "new", (client) =>
      client.query("alter table notes disable trigger crossfade_guard"),
    );
    expect((await world.standing()).armed).toEqual([]);
    expect(await recover(deps())).toMatchObject({ outcome: "settled", authority: "old", epoch });
    expect((await world.standing()).armed).toEqual(["new"]);
  });

  test("two recoveries at once: one of them does it, the other finds it done or gives way", async () => {
    await world.killed("close", away("old"));
    const results = await Promise.allSettled([recover(deps()), recover(deps())]);
    const refused = results.flatMap((result) =>
      result.status === "rejected" ? [result.reason.code] : [],
    );
    expect(refused.every((code) => code === "STALE")).toBe(true);
    await recover(deps());
    await world.mustStand("new", epoch + 1);
  });

  describe("a closed side that a restore brought back open", () => {
    /** On the side that was restored, in a transaction that stays open. */
    async function writing(text: string): Promise<pg.Client> {
      const client = await openApp(world.config, "old");
      onTestFinished(() => closeSession(client));
      await client.query("begin");
      await client.query(text);
      return client;
    }

    const gapOf = async (direction: Direction) => {
      const compiled = await compilePlan(flipPlan(world.config), direction, "test", "gap");
      return withApp(world.config, compiled.source, (source) =>
        withApp(world.config, compiled.target, (target) => findGap(compiled, source, target)),
      );
    };
    const one = async <T>(side: Side, text: string): Promise<T> =>
      withApp(world.config, side, async (client) => {
        const results = await client.query(text);
        return (Array.isArray(results) ? results.at(-1) : results).rows[0];
      });
    const onOld = () =>
      one(
        "old",
        "select epoch, (select last_value from crossfade.guard_old) as guard from crossfade.state",
      );

    test("is closed when its writers are done, and turned when they cannot write any more; then it is copied as a whole", async () => {
      await one("old", "select setval('crossfade.log_old_id', 1000000)");
      expect(await runFlip(deps(), away("old"))).toMatchObject({ ok: true });
      expect([await gapOf("reverse"), await gapOf("forward")]).toEqual([undefined, undefined]);
      // As it was before the flip: a lower epoch and attempt, its guard open and in part off, a log that ends sooner.
      await one(
        "old",
        `update crossfade.state set direction = 'forward', epoch = ${epoch}, attempt = attempt - 1, attempt_ended = true;
         select setval('crossfade.guard_old', 0); select setval('crossfade.log_old_id', 1);
         delete from crossfade.log_old; alter table notes disable trigger crossfade_guard`,
      );
      await expect(standing(world.config)).rejects.toThrow("disagree");
      expect(await sidesAgree(deps())).toBe(false);
      const guarded = await writing("insert into items (v) values ('guarded')");
      const unguarded = await writing("delete from notes where false");
      const recovered = recover(deps());
      const isAwaited = `select exists (select from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and not granted
        and database = (select oid from pg_database where datname = current_database())) as found`;
      await expect.poll(() => one("old", isAwaited), { interval: 5 }).toEqual({ found: true });
      expect(await onOld()).toEqual({ epoch, guard: "0" });
      await guarded.query("rollback");
      await expect.poll(onOld).toEqual({ epoch, guard: "1" });
      await unguarded.query("rollback");
      expect(await recovered).toMatchObject({
        outcome: "completed",
        authority: "new",
        epoch: epoch + 1,
      });
      await world.mustStand("new", epoch + 1);
      expect(await gapOf("reverse")).toContain("the old database went back in time: its epoch");
      expect(await gapOf("forward")).toContain("the old database went back in time (its log ends");
    });

    test("gives out its numbers again, and no fence of them counts because an earlier one did", async () => {
      await one("old", "select setval('crossfade.log_old_id', 2000000)");
      expect(await runFlip(deps(), away("old"))).toMatchObject({ ok: true });
      await one("old", "select setval('crossfade.log_old_id', 1); delete from crossfade.log_old");
      expect(await runFlip(deps(), away("new"))).toMatchObject({ ok: true });
      expect(await runFlip(deps(), away("old"))).toMatchObject({ ok: true });
      // What the last flip waited for is what it wrote.
      const { passed } = await one<{ passed: string }>(
        "new",
        "select fence as passed from crossfade.position where direction = 'forward'",
      );
      expect(Number(passed)).toBeLessThan(2_000_000);
      await world.mustStand("new", epoch + 3);
    });
  });
});
