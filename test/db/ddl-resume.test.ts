import { expect, test } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { readMigration } from "../../store/control/migration.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { openEngine } from "../../store/postgres/engine.ts";
import { openRealEngine } from "../../switchover/wiring.ts";
import { openTestListener, silentLog } from "../support/control.ts";
import { mapping } from "../support/sync-world.ts";
import { readWorkers } from "../../store/control/workers.ts";
import { ask, itemsPlan, runWorkers, startController } from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";

const onOld = (plan: Plan, sql: string) =>
  withClient(plan.old.database, (client) => client.query(sql));

async function stopped(store: ControlStore): Promise<string> {
  const why = async () => {
    const [mirror] = await readWorkers(store, "mirror");
    return mirror?.stats.state === "failed" ? (mirror.stats.why ?? "") : "";
  };
  await expect.poll(why).toContain("changed");
  return why();
}

async function healed(store: ControlStore): Promise<void> {
  await expect
    .poll(async () => (await readMigration(store)).gap, { timeout: 30_000 })
    .toBeUndefined();
}

async function same(plan: Plan): Promise<void> {
  const read = (url: string, name: string) =>
    withClient(url, async (client) => {
      const { rows } = await client.query(
        `select id, ${name} as name, note from items order by id`,
      );
      return rows as unknown[];
    });
  await expect
    .poll(async () => read(plan.new.database, "title"))
    .toEqual(await read(plan.old.database, "name"));
}

test(
  "after DDL the mirror stops and says why; resume takes the tables, copies and verifies them again",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const { store } = await startController(plan);
    runWorkers(plan);
    await ask(plan, "advance", { to: "shadow", wait: true });

    // Same type, other values, no row event; and writes that a missing trigger does not see.
    await onOld(plan, "alter table items alter note type text using 'rewritten ' || note");
    expect(await stopped(store)).toContain(
      "table items changed: column note was rewritten. Nothing is mirrored, copied or compared until `crossfade resume`",
    );
    await expect(ask(plan, "verify", { repair: false })).rejects.toMatchObject({
      code: "SHAPE_CHANGED",
    });
    expect(await ask(plan, "resume", { what: "all" })).toMatchObject({
      tables_taken: ["old items: column note was rewritten"],
    });
    await healed(store);
    await same(plan);

    await onOld(
      plan,
      "drop trigger crossfade_log on items; delete from items where id = 1; insert into items (name) values ('unseen')",
    );
    expect(await stopped(store)).toContain("trigger crossfade_log on items was dropped");
    await ask(plan, "resume", { what: "all" });
    await healed(store);
    await same(plan);
    await onOld(plan, "update items set name = 'seen again' where id = 2");
    await same(plan);
    expect(await ask(plan, "verify", { repair: false })).toMatchObject({ run: { state: "clean" } });
  },
);

test(
  "a plan that does not fit the tables any more is refused by resume, and nothing is taken",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const { store } = await startController(plan);
    runWorkers(plan);
    await ask(plan, "advance", { to: "shadow", wait: true });
    await onOld(plan, "alter table items rename name to label");
    expect(await stopped(store)).toContain("column name is now label");
    await expect(ask(plan, "resume", { what: "all" })).rejects.toMatchObject({ exitCode: 2 });
    expect((await readMigration(store)).gap).toBeUndefined();
    await onOld(plan, "alter table items rename label to name");
    await onOld(plan, "update items set name = 'carried' where id = 3");
    await same(plan);
  },
);

test(
  "a plan edited to follow another table: nothing goes on without it, and resume takes it",
  { timeout: 240_000 },
  async () => {
    const plan = await itemsPlan();
    const { store } = await startController(plan);
    await ask(plan, "advance", { to: "dual-write", wait: true });
    for (const { database } of [plan.old, plan.new])
      await withClient(database, (client) =>
        client.query("create table accounts (id int primary key)"),
      );
    const forward = {
      kind: "tables" as const,
      mappings: [
        mapping("accounts", "accounts"),
        mapping("items", "items", { set: new Map([["title", "name"]]) }),
      ],
    };
    const edited: Plan = { ...plan, forward };
    const open = () =>
      openEngine({
        plan: edited,
        direction: "forward",
        epoch: 1,
        role: "test",
        instance: "edited",
      });
    await expect(open()).rejects.toMatchObject({ code: "REFUSED" });
    const listener = await openTestListener(store);
    const engine = openRealEngine({ plan: edited, store, listener, log: silentLog });
    expect(await engine.changedShapes("forward")).toEqual(["old: table accounts is not followed"]);
    await engine.acceptShapes(async () => {});
    expect(await engine.changedShapes("forward")).toEqual([]);
    const next = await open();
    // What was installed keeps its number.
    expect(next.context.compiled.logged.map(({ name, number }) => [name, number])).toEqual([
      ["accounts", 2],
      ["items", 1],
    ]);
    await next.close();
    await onOld(plan, "insert into accounts values (7)");
    const { rows } = await withClient(plan.old.database, (client) =>
      client.query("select tbl, vals from crossfade.log_old where op = 'w'"),
    );
    expect(rows).toEqual([{ tbl: 2, vals: ["7"] }]);
  },
);
