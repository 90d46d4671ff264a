import { expect, test } from "vitest";
import { uninstall } from "../../store/control/schema.ts";
import { catalogOf } from "../support/catalog.ts";
import { ask, runWorkers, startController, statusOf } from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";
import { ItemsClients, itemsServicePlan, startItemsSidecar } from "../support/items-service.ts";

const added = (before: readonly string[], after: readonly string[]) =>
  after.filter((line) => !before.includes(line));

test(
  "done leaves nothing on new, on old the tables aside behind their guard; the sidecar passes everything on; clean removes the rest",
  { timeout: 240_000 },
  async () => {
    const { plan } = await itemsServicePlan();
    const before = {
      old: await catalogOf(plan.old.database),
      new: await catalogOf(plan.new.database),
    };
    const { store, controller } = await startController(plan);
    runWorkers(plan);
    const url = await startItemsSidecar(plan);
    const clients = new ItemsClients(url);
    await ask(plan, "advance", { to: "write-new", wait: true });
    const installed = added(before.new, await catalogOf(plan.new.database));
    expect(installed, "or the comparison says nothing").toContainEqual(
      expect.stringContaining("crossfade.log_new"),
    );
    await ask(plan, "advance", { to: "done", wait: true });
    await clients.progress(30);

    expect(await catalogOf(plan.new.database)).toEqual(before.new);
    const old = await catalogOf(plan.old.database);
    const moved = before.old.map((line) =>
      line
        .replace(/^(relation|column|constraint) public\./, "$1 crossfade_old.")
        .replaceAll("'items_id_seq'", "'crossfade_old.items_id_seq'"),
    );
    expect(added(old, moved), "what the app had is there, aside").toEqual([]);
    const rest = added(moved, old).filter(
      (line) => !/^(relation|column|constraint|function|rule|trigger append_only)/.test(line),
    );
    expect(rest).toEqual([
      expect.stringMatching(/^schema crossfade /),
      "schema crossfade_old ",
      "trigger crossfade_guard on crossfade_old.items A",
    ]);
    const objects = added(moved, old)
      .map((line) => /^(?:relation|function) crossfade\.(\w+)/.exec(line)?.[1])
      .filter((name) =>
        /^(log|feed|tables|position|confirmed|shape|quarantine|chunk_(old|new)_)/.test(name ?? ""),
      );
    expect(objects, "feed and mirror are gone").toEqual([]);

    expect(await statusOf(plan)).toMatchObject({
      phase: "done",
      authority: "new",
      next: expect.stringContaining("send traffic there directly, then stop them") as string,
    });

    await controller.stop();
    await ask(plan, "clean");
    await uninstall(store);
    const left = added(moved, await catalogOf(plan.old.database));
    expect(left).toEqual(["schema crossfade_old "]);
    // Without a control store, and with old gone: nothing of it is needed to reach new.
    await withClient(plan.old.database, (client) =>
      client.query("drop schema crossfade_old cascade"),
    );
    await clients.progress(30);
    await clients.stop();
    expect([...clients.failed, ...clients.stale]).toEqual([]);
    const answer = await fetch(`${url}/items/5`, { headers: { authorization: "client 9" } });
    expect([answer.status, answer.headers.get("crossfade-side")]).toEqual([200, "new"]);
  },
);
