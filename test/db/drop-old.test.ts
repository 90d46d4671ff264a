import { expect, test } from "vitest";
import { NO_POLICY } from "../../config/policy.ts";
import { readEvents } from "../../store/control/history.ts";
import {
  ask,
  installedObjects,
  itemsPlan,
  runSidecar,
  runWorkers,
  startController,
} from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";

test(
  "the old tables are dropped in done alone, all or none, and nothing else with them",
  { timeout: 240_000 },
  async () => {
    const plan = { ...(await itemsPlan()), policy: { ...NO_POLICY, stayMs: { done: 1 } } };
    const { store } = await startController(plan);
    runWorkers(plan);
    runSidecar(plan, "s1");
    await ask(plan, "advance", { to: "write-new", wait: true });
    await expect(ask(plan, "clean", { dropOld: true })).rejects.toThrow("still needed");
    await ask(plan, "advance", { to: "done", wait: true });
    const url = plan.old.database;
    await withClient(url, (client) =>
      client.query(
        "create table crossfade_old.mine (id int); create view report as select * from crossfade_old.items",
      ),
    );
    await expect(ask(plan, "clean", { dropOld: true })).rejects.toThrow(
      "view public.report depends",
    );
    expect((await installedObjects(url)).tables).toContain("crossfade_old.items");
    await withClient(url, (client) => client.query("drop view report"));
    expect(await ask(plan, "clean", { dropOld: true })).toEqual({ dropped: ["items"] });
    expect((await installedObjects(url)).tables).toEqual(["crossfade_old.mine"]);
    expect(await ask(plan, "clean", { dropOld: true })).toEqual({ dropped: [] });
    const events = await readEvents(store);
    expect(events.find(({ kind }) => kind === "drop-old")?.detail).toEqual({ dropped: ["items"] });
  },
);
