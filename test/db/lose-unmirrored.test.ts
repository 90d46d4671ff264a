import { expect, test } from "vitest";
import { readEvents } from "../../store/control/history.ts";
import { readMigration } from "../../store/control/migration.ts";
import {
  ask,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { CuttableProxy } from "../support/cuttable-proxy.ts";
import { readWorkers } from "../../store/control/workers.ts";
import { withClient } from "../support/databases.ts";

const GATES = {
  verifyMaxAgeMs: 600_000,
  lagMs: 5_000,
  shadow: { samples: 0, mismatch: 1 },
  canary: { samples: 0, errors: 1, p99: 10 },
} as const;

test("new is gone: nothing moves without the word; then old takes writes, and new is closed and made equal when it comes back", async () => {
  const bare = await itemsPlan({ gates: GATES });
  const direct = bare.new.database;
  const url = new URL(direct);
  const line = await CuttableProxy.open({ host: url.hostname, port: Number(url.port) });
  url.hostname = "127.0.0.1";
  url.port = String(line.port);
  const plan = { ...bare, new: { ...bare.new, database: url.href } };
  const onNew = (sql: string) => withClient(direct, (client) => client.query(sql));
  const onOld = (sql: string) => withClient(plan.old.database, (client) => client.query(sql));

  const { controller, store } = await startController(plan);
  runWorkers(plan);
  runSidecar(plan, "s1");
  await ask(plan, "advance", { to: "write-new", wait: true });
  await onNew("insert into items (id, title) values (500, 'mirrored')");
  await expect
    .poll(async () => (await onOld("select name from items where id = 500")).rows)
    .toEqual([{ name: "mirrored" }]);
  await expect(ask(plan, "rollback", { loseUnmirrored: true })).rejects.toThrow("new answers");

  const reported = async () => (await readWorkers(store, "mirror"))[0]?.stats.direction;
  await expect.poll(reported).toBe("reverse");
  line.cut();
  await onNew("insert into items (id, title) values (501, 'unmirrored')");
  // The controller that took over never saw new: it still does what a person asks for.
  await controller.stop();
  const told = await ask(plan, "rollback", { loseUnmirrored: true, dryRun: true });
  expect(told).toMatchObject({
    phase: "write-new",
    lost: {
      fence: expect.stringMatching(/^\d+$/) as string,
      mirrored_until: expect.any(String) as string,
      quarantined: 0,
      why: expect.stringContaining("everything committed on new after") as string,
    },
  });
  expect((await readMigration(store)).authority).toBe("new");
  await expect(onOld("insert into items (name) values ('too early')")).rejects.toMatchObject({
    code: "CF001",
  });

  expect(await ask(plan, "rollback", { loseUnmirrored: true })).toMatchObject({ phase: "shadow" });
  const given = await readMigration(store);
  expect(given).toMatchObject({ phase: "shadow", authority: "old", readsNew: 0 });
  expect(given.gap).toContain("new was given up");
  // Without a collision with what was mirrored.
  const { rows } = await onOld("insert into items (name) values ('after') returning id");
  expect(Number((rows as { id: number }[])[0]?.id)).toBeGreaterThan(500);
  await expect(ask(plan, "rollback", { loseUnmirrored: true })).rejects.toMatchObject({
    code: "REFUSED",
  });
  expect((await readEvents(store)).map(({ kind }) => kind)).toContain("lose-unmirrored");
  // Two open guards, until the databases see each other again.
  await onNew("insert into items (id, title) values (502, 'stray')");

  await startController(plan, { instance: "second" });
  line.mend();
  await expect
    .poll(async () => (await readMigration(store)).gap ?? "healed", { timeout: 60_000 })
    .toBe("healed");
  await expect(onNew("insert into items (title) values ('late')")).rejects.toMatchObject({
    code: "CF001",
  });
  const names = async (sql: string) =>
    (await withClient(sql.includes("title") ? direct : plan.old.database, (c) => c.query(sql)))
      .rows;
  expect(await names("select id, title as name from items where id >= 500 order by id")).toEqual(
    await names("select id, name from items where id >= 500 order by id"),
  );
  expect(await readMigration(store)).toMatchObject({ authority: "old", epoch: given.epoch });
});
