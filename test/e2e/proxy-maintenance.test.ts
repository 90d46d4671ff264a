import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readEvents } from "../../store/control/history.ts";
import { ask, statusOf } from "../support/controller-world.ts";
import { proxyWorld, runRole } from "../support/proxy-world.ts";
import { HandSource, send, startApp, startTestSidecar } from "../support/sidecar.ts";

const write = { method: "POST", body: "x" };

test("maintenance: reads are served, writes get 503 with retry-after and the message; a restart without the control store keeps it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "crossfade-proxy-"));
  const apps = { old: await startApp("old"), new: await startApp("new") };
  const first = await startTestSidecar({ folder, ...apps });
  expect((await send(first.url, write)).status).toBe(200);
  first.source.set({ maintenance: "back at nine" });
  const refused = await send(first.url, write);
  expect(refused).toMatchObject({ status: 503, headers: { "retry-after": "60" } });
  expect(JSON.parse(refused.body)).toEqual({ error: "maintenance", message: "back at nine" });
  expect((await send(first.url)).status).toBe(200);
  await first.sidecar.close();

  const away = new HandSource(undefined);
  away.link({ connected: false });
  const second = await startTestSidecar({ folder, ...apps, source: away });
  expect((await send(second.url, write)).status).toBe(503);
  second.source.set({ maintenance: null });
  expect((await send(second.url, write)).status).toBe(200);
  expect(apps.old.seen.filter(({ method }) => method === "POST")).toHaveLength(2);
});

test("a write that waited through a hold meets the maintenance that began meanwhile, and one in flight is still answered", async () => {
  let answer = () => {};
  const old = await startApp("old", (request, response) => {
    if (request.url === "/slow") answer = () => response.end("slow");
    else response.end("old");
  });
  const { url, source, sidecar } = await startTestSidecar({ old });
  const flying = send(`${url}/slow`, { ...write, headers: { "x-request-id": "one" } });
  await expect.poll(() => source.acknowledged.length && sidecar.stats().in_flight_writes).toBe(1);
  source.hold(1, 60_000);
  const held = send(url, write);
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  source.set({ maintenance: "later", hold: null });
  expect((await held).status).toBe(503);
  // What a write in flight causes belongs to it: turned away, neither could be answered.
  expect((await send(url, { ...write, headers: { "x-request-id": "one" } })).status).toBe(200);
  answer();
  expect((await flying).body).toBe("slow");
});

test("the command switches it in the control store: every sidecar obeys, status and timeline say so", async () => {
  const { plan, store } = await proxyWorld();
  const { url } = await runRole(plan);
  const said = async () => (await statusOf(plan)).maintenance;
  expect(await ask(plan, "maintenance", { on: true })).toEqual({ maintenance: "back soon" });
  await expect.poll(async () => (await send(url, write)).status).toBe(503);
  expect((await send(url)).status).toBe(200);
  expect(await said()).toBe("back soon");
  await ask(plan, "maintenance", { on: false });
  await expect.poll(async () => (await send(url, write)).status).toBe(200);
  expect(await said()).toBeNull();
  const events = await readEvents(store);
  expect(events.filter(({ kind }) => kind === "maintenance").map(({ detail }) => detail)).toEqual([
    { on: true, message: "back soon" },
    { on: false, message: null },
  ]);
});
