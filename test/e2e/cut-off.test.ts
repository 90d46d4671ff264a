import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { freePort } from "../../examples/support/free-port.ts";
import { openControlStore, closeControlStore } from "../../store/control/open.ts";
import { readSidecars, removeSidecar } from "../../store/control/sidecars.ts";
import { loadPlan } from "../../config/load.ts";
import { CliProcess, runCli } from "../support/cli.ts";
import { CuttableProxy } from "../support/cuttable-proxy.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";
import { startApp } from "../support/sidecar.ts";

/** An app of one side: POST /N inserts row N, and answers 409 with the SQLSTATE when the database refuses. */
async function startNotesApp(databaseUrl: string): Promise<string> {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 4 });
  onTestFinished(() => pool.end());
  const app = await startApp("notes", async (request, response) => {
    request.resume();
    const id = Number(request.url?.slice(1));
    const work =
      request.method === "POST"
        ? pool.query("insert into notes values ($1, 'x')", [id])
        : pool.query("select 1");
    await work.then(
      () => response.writeHead(201).end("ok"),
      (error: pg.DatabaseError) =>
        response.writeHead(409, { "crossfade-applied": "no" }).end(error.code),
    );
  });
  return app.url;
}

/** Invariant (f): fail-static routing keeps a cut-off sidecar on the old authority; the guard keeps its writes out. */
test("a sidecar cut off from the control store during a flip cannot write to the wrong side, and learns", async () => {
  const { oldUrl, newUrl } = await createDatabasePair();
  for (const url of [oldUrl, newUrl])
    await withClient(url, (client) =>
      client.query("create table notes (id int primary key, body text)"),
    );
  const content = {
    name: "cut-off",
    old: { database: oldUrl, app: await startNotesApp(oldUrl) },
    new: { database: newUrl, app: await startNotesApp(newUrl) },
    forward: { notes: { from: "notes" } },
    reverse: { notes: { from: "notes" } },
    proxy: { listen: `127.0.0.1:${await freePort()}` },
    operate: { listen: "127.0.0.1:0" },
    // Nobody reads: there is nothing to wait for.
    canary: { steps: ["50%"], stay: "1ms" },
    gates: { canary: { samples: 0 } },
  };
  const planFile = writePlanFile(content);
  const url = new URL(oldUrl);
  const line = await CuttableProxy.open({ host: url.hostname, port: Number(url.port) });
  url.port = String(line.port);
  const lonelyListen = `127.0.0.1:${await freePort()}`;
  const lonelyPlan = writePlanFile({
    ...content,
    control: { database: url.toString(), schema: "crossfade" },
    proxy: { listen: lonelyListen },
  });

  const up = new CliProcess(["up", "--plan", planFile, "--json"]);
  await expect.poll(() => up.stdout, { timeout: 60_000 }).toContain("}\n");
  new CliProcess(["proxy", "--plan", lonelyPlan, "--json"]);
  const post = async (listen: string, id: number) => {
    const answer = await fetch(`http://${listen}/${id}`, { method: "POST" });
    return `${answer.status} ${await answer.text()} ${answer.headers.get("crossfade-side")}`;
  };
  await expect
    .poll(() => post(lonelyListen, 1).catch(() => "not yet"), { timeout: 30_000 })
    .toMatch(/201 ok old|409 23505 old/);
  expect(await runCli(planFile, "advance", "--to", "read-new", "--wait")).toMatchObject({
    exit: 0,
  });

  line.cut();
  expect(await post(lonelyListen, 2)).toBe("201 ok old");
  // The operator goes on without the silent sidecar: the guard protects.
  const store = openControlStore(loadPlan(planFile), { role: "test", instance: "a" });
  try {
    const silent = (await readSidecars(store)).find((sidecar) => sidecar.listen === lonelyListen);
    await removeSidecar(store, silent?.id ?? "");
  } finally {
    await closeControlStore(store);
  }
  expect(await runCli(planFile, "advance", "--to", "write-new", "--wait")).toMatchObject({
    exit: 0,
    document: { phase: "write-new" },
  });

  expect(await post(lonelyListen, 3)).toBe("409 CF001 old");
  expect(await post(content.proxy.listen, 4)).toBe("201 ok new");
  line.mend();
  await expect
    .poll(() => post(lonelyListen, 5), { timeout: 20_000 })
    .toMatch(/201 ok new|409 23505 new/);
  const ids = async (database: string) =>
    withClient(
      database,
      async (client) =>
        (await client.query("select array_agg(id order by id) as ids from notes")).rows[0].ids,
    );
  await expect.poll(() => ids(oldUrl), { timeout: 20_000 }).toEqual([1, 2, 4, 5]);
  expect(await ids(newUrl)).toEqual([1, 2, 4, 5]);
});
