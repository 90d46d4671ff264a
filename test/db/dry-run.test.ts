import { expect, test } from "vitest";
import type { WalkResult } from "../../switchover/walk.ts";
import { ask, installedObjects, itemsPlan, startController } from "../support/controller-world.ts";

const SIDES = ["old", "new"] as const;

test.each(["trigger", "wal"] as const)(
  "feed %s: a dry run shows the statements of each step, of the code that runs them, and executes none",
  async (feed) => {
    const plan = await itemsPlan({ feed });
    await startController(plan);
    const objects = async () =>
      Promise.all(SIDES.map((side) => installedObjects(plan[side].database)));
    const dry = async (kind: "advance" | "rollback", to: string) => {
      const before = await objects();
      const { steps } = (await ask(plan, kind, { to, dryRun: true })) as WalkResult;
      expect(await objects()).toEqual(before);
      return steps.map(({ sql = [] }) => sql.map((each) => `${each.on}: ${each.sql}`).join("\n"));
    };
    const [install, , , , , , , flip] = await dry("advance", "write-new");
    for (const part of [
      "new: create schema crossfade",
      "insert into crossfade.state (side, plan) values ('old',",
      "create or replace function crossfade.guard_old()",
      "create trigger crossfade_guard before",
      "enable always trigger crossfade_guard",
      feed === "wal" ? "pg_create_logical_replication_slot" : "trigger crossfade_log after insert",
    ])
      expect(install).toContain(part);
    expect(install).not.toContain("not known");
    expect(flip).toContain(
      "old: select setval('crossfade.guard_old', 1)\nnew: select setval('crossfade.guard_new', 0)",
    );

    await ask(plan, "advance");
    const installed = await objects();
    expect(installed[1]?.triggers).toContain("crossfade_guard");
    const [removal] = await dry("rollback", "off");
    expect(removal).toContain("old: drop table if exists crossfade.log_old");
    expect(removal).toContain("drop trigger");
    expect(removal).not.toContain("not known");
    if (feed === "wal") expect(removal).toContain("pg_drop_replication_slot");
  },
);
