import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { parseTokens } from "../../config/operator-tokens.ts";
import type { Plan } from "../../config/plan-types.ts";
import { addEvent } from "../../store/control/history.ts";
import { listen } from "../../store/control/listen.ts";
import { query } from "../../store/control/open.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { install, uninstall } from "../../store/control/schema.ts";
import { buildApi } from "../../switchover/api.ts";
import { openRealEngine } from "../../switchover/wiring.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import { itemsPlan, startController } from "../support/controller-world.ts";

const as = (token: string) => ({ authorization: `Bearer ${token}` });
const OPERATOR = as("do-things-1");

function api(plan: Plan, tokens: string | undefined) {
  const { name, control } = plan;
  const store = openTestStore(control.database, { plan: name, schema: control.schema });
  const listener = listen(store, silentLog, "controller");
  const engine = openRealEngine({ plan, store, listener, log: silentLog });
  const server = buildApi({ plan, store, listener, engine, log: silentLog }, parseTokens(tokens));
  onTestFinished(async () => {
    await server.close();
    await listener.close();
  });
  const post = async (kind: string, headers: object, payload: object = {}) => {
    const answer = await server.inject({
      method: "POST",
      url: `/v1/${kind}`,
      headers: { ...headers },
      payload,
    });
    return {
      status: answer.statusCode,
      body: answer.json() as { id: number; error?: { message: string } },
    };
  };
  return { server, store, post };
}

test("a command asked for twice with one key runs once, also when both come at the same time", async () => {
  const plan = await itemsPlan();
  await startController(plan);
  const { post, store } = api(plan, "operator:do-things-1,approver:say-yes-11");
  const key = { ...OPERATOR, "idempotency-key": "k-1" };
  const [first, second] = await Promise.all([
    post("tune", key, { key: "chunk", value: 7 }),
    post("tune", key, { key: "chunk", value: 7 }),
  ]);
  expect(first).toMatchObject({ status: 200, body: { state: "done" } });
  expect(second.body).toEqual(first.body);
  expect(await post("tune", key, { value: 7, key: "chunk" })).toEqual(first);
  expect(await post("tune", key, { key: "chunk", value: 8 })).toMatchObject({ status: 409 });
  expect(await post("pause", key)).toMatchObject({ status: 409 });
  expect(await post("pause", { ...OPERATOR, "idempotency-key": "a b" })).toMatchObject({
    status: 400,
  });
  // Somebody else's key of the same text is another key.
  const other = await post(
    "tune",
    { ...as("say-yes-11"), "idempotency-key": "k-1" },
    { key: "chunk", value: 9 },
  );
  expect(other.status).toBe(200);
  expect(other.body.id).not.toBe(first.body.id);
  const rows = await query<{ n: number }>(
    store,
    `select count(*) as n from ${store.table("command")}`,
  );
  expect(rows[0]?.n).toBe(2);
});

test("`prefer: respond-async` answers at once", async () => {
  const plan = await itemsPlan();
  const { store } = await startController(plan);
  const { server, post } = api(plan, undefined);
  const asked = await post("pause", { prefer: "respond-async" });
  expect(asked).toMatchObject({ status: 202, body: { kind: "pause", state: "queued" } });
  await expect
    .poll(
      async () => (await server.inject({ url: `/v1/commands/${asked.body.id}` })).json() as object,
      { timeout: 20_000 },
    )
    .toMatchObject({ state: "done", by: "api@127.0.0.1" });
  expect((await server.inject({ url: "/v1/commands" })).json()).toMatchObject([{ kind: "pause" }]);
  expect((await server.inject({ url: "/v1/commands/x" })).statusCode).toBe(400);
  expect(store.plan).toBe(plan.name);
});

test("a token that has expired or was never given opens nothing; a named one speaks for its person alone", async () => {
  const plan = await itemsPlan();
  await startController(plan);
  const soon = new Date(Date.now() + 86_400_000).toISOString();
  const { server, post } = api(
    plan,
    `operator:long-gone-1;expires=2020-01-01,operator:still-good-1;expires=${soon};name=ada,approver:say-yes-11;name=bo`,
  );
  const status = async (token: string) =>
    (await server.inject({ url: "/v1/session", headers: as(token) })).statusCode;
  expect([
    await status("long-gone-1"),
    await status("never-given"),
    await status("still-good-1"),
  ]).toEqual([401, 401, 200]);
  expect(await post("pause", as("long-gone-1"))).toMatchObject({
    status: 401,
    body: { error: { message: "the token has expired" } },
  });
  expect(await post("pause", as("still-good-1"))).toMatchObject({
    body: { by: "api:ada@127.0.0.1" },
  });
  expect(await post("approve", as("say-yes-11"), { phase: "done", as: "cy" })).toMatchObject({
    status: 409,
  });
  expect(await post("approve", as("say-yes-11"), { phase: "done" })).toMatchObject({
    status: 200,
    body: { result: { name: "bo" } },
  });
  for (const wrong of [
    "operator:do-things-1;expires=soon",
    "operator:do-things-1;colour=red",
    "operator:do-things-1;name=",
  ])
    expect(() => parseTokens(wrong), wrong).toThrow("operate.tokens: entry 1");
});

test("whoever tries tokens is slowed down, and the timeline is not filled by it", async () => {
  const plan = await itemsPlan();
  await startController(plan);
  const { server } = api(plan, "viewer:look-only-1");
  const codes: number[] = [];
  for (let n = 0; n < 60; n += 1)
    codes.push(
      (await server.inject({ url: "/v1/status", headers: as(`guess-${n}-12345`) })).statusCode,
    );
  expect(codes[0]).toBe(401);
  expect(codes).toContain(429);
  const slowed = await server.inject({
    url: "/v1/status",
    headers: as("look-only-1"),
    remoteAddress: "192.0.2.7",
  });
  expect(slowed.statusCode, "another address is not slowed down").toBe(200);
  const timeline = (
    await server.inject({
      url: "/v1/timeline",
      headers: as("look-only-1"),
      remoteAddress: "192.0.2.7",
    })
  ).json() as { kind: string }[];
  expect(timeline.filter(({ kind }) => kind === "denied").length).toBeLessThan(6);
});

test("the timeline is only ever added to, and goes with the store", async () => {
  const plan = await itemsPlan();
  const store = openTestStore(plan.control.database, {
    plan: plan.name,
    schema: plan.control.schema,
  });
  await install(store);
  await addEvent(store, { kind: "first", by: "test" });
  for (const sql of ["update T set by = 'me'", "delete from T", "truncate T"])
    await expect(query(store, sql.replace("T", store.table("event"))), sql).rejects.toMatchObject({
      code: "CF004",
    });
  await uninstall(store);
  const left = await query(store, "select from pg_namespace where nspname = $1", [
    plan.control.schema,
  ]);
  expect(left).toEqual([]);
});

test("the timeline and the status are told as they change, without a gap", async () => {
  const plan = await itemsPlan();
  const { store } = await startController(plan);
  const { server, post } = api(plan, undefined);
  await addEvent(store, { kind: "one", by: "test" });
  await addEvent(store, { kind: "two", by: "test" });
  await server.listen({ host: "127.0.0.1", port: 0 });
  const base = `http://127.0.0.1:${(server.server.address() as AddressInfo).port}`;
  const events = await follow(`${base}/v1/events`, { "last-event-id": "1" });
  await expect.poll(() => events.seen, { timeout: 20_000 }).toContain("status off");
  expect(events.seen).not.toContain("timeline one");
  await post("tune", {}, { key: "chunk", value: 3 });
  await lateCommit(store);
  await expect.poll(() => events.seen, { timeout: 20_000 }).toContain("timeline late");
  expect(events.seen.filter((line) => line.startsWith("timeline"))).toEqual([
    "timeline two",
    "timeline tune",
    "timeline after",
    "timeline late",
  ]);
  const onlyTimeline = await follow(`${base}/v1/timeline?after=2`, { accept: "text/event-stream" });
  await expect.poll(() => onlyTimeline.seen.length, { timeout: 20_000 }).toBe(3);
  expect(onlyTimeline.seen.some((line) => line.startsWith("status"))).toBe(false);
  const page = await fetch(`${base}/v1/timeline?after=1&limit=1`);
  expect(await page.json()).toMatchObject([{ kind: "two" }]);
});

/** An event whose id is lower than that of one that was committed, and told, before it. */
async function lateCommit(store: ControlStore): Promise<void> {
  const client = await store.pool.connect();
  const insert = (kind: string) =>
    `insert into ${store.table("event")} (kind, by, phase, epoch, detail) values ('${kind}', 'test', 'off', 1, '{}')`;
  await client.query("begin");
  await client.query(insert("late"));
  await addEvent(store, { kind: "after", by: "test" });
  await new Promise((resolve) => setTimeout(resolve, 300));
  await client.query("commit");
  client.release();
}

/** Reads a stream of server-sent events until the test ends: `NAME KIND-OR-PHASE` of each. */
async function follow(
  url: string,
  headers: Record<string, string>,
): Promise<{ readonly seen: string[] }> {
  const abort = new AbortController();
  onTestFinished(() => abort.abort());
  const response = await fetch(url, { headers, signal: abort.signal });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const seen: string[] = [];
  void (async () => {
    let text = "";
    for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      const blocks = (text + part).split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const name = /^event: (.*)$/m.exec(block)?.[1];
        const data = /^data: (.*)$/m.exec(block)?.[1];
        if (name === undefined || data === undefined) continue;
        const { kind, phase } = JSON.parse(data) as { kind?: string; phase?: string };
        seen.push(`${name} ${kind ?? phase}`);
      }
    }
  })().catch(() => {});
  return { seen };
}
