import { expect, onTestFinished, test } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { listen } from "../../store/control/listen.ts";
import { buildApi, startApi } from "../../switchover/api.ts";
import { REQUESTS } from "../../switchover/requests.ts";
import { parseTokens } from "../../config/operator-tokens.ts";
import { openRealEngine } from "../../switchover/wiring.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import { itemsPlan, startController } from "../support/controller-world.ts";

const TOKENS = "viewer:look-only-1,operator:do-things-1,approver:say-yes-11";
const as = (token: string) => ({ authorization: `Bearer ${token}` });

function options(plan: Plan) {
  const store = openTestStore(plan.control.database, {
    plan: plan.name,
    schema: plan.control.schema,
  });
  const listener = listen(store, silentLog, "controller");
  onTestFinished(() => listener.close());
  return {
    plan,
    store,
    listener,
    engine: openRealEngine({ plan, store, listener, log: silentLog }),
    log: silentLog,
  };
}

function api(plan: Plan, tokens: string | undefined) {
  const server = buildApi(options(plan), parseTokens(tokens));
  onTestFinished(async () => server.close());
  return server;
}

test("each role may do what it may, and nothing without a token", async () => {
  const plan = await itemsPlan();
  await startController(plan);
  const server = api(plan, TOKENS);
  const get = (url: string, headers = {}) => server.inject({ url, headers });
  const post = (url: string, headers: object, payload: object = {}) =>
    server.inject({ method: "POST", url, headers: { ...headers }, payload });
  expect((await get("/v1/status")).statusCode).toBe(401);
  expect((await get("/v1/status", as("wrong-token"))).statusCode).toBe(401);
  expect((await get("/healthz")).json()).toEqual({ ok: true });
  expect((await get("/readyz")).statusCode).toBe(200);
  expect((await get("/v1/status", as("look-only-1"))).json()).toMatchObject({
    phase: "off",
    authority: "old",
  });
  expect((await post("/v1/advance", as("look-only-1"))).statusCode).toBe(403);
  expect(
    (await post("/v1/approve", as("do-things-1"), { phase: "done", as: "anna" })).statusCode,
  ).toBe(403);
  expect(
    (await post("/v1/approve", as("say-yes-11"), { phase: "done", as: "anna" })).statusCode,
  ).toBe(200);
  const advanced = await post("/v1/advance", as("do-things-1"));
  expect(advanced.json()).toMatchObject({ state: "done", result: { phase: "dual-write" } });
  expect(
    (await get(`/v1/commands/${(advanced.json() as { id: number }).id}`, as("look-only-1"))).json(),
  ).toMatchObject({ kind: "advance" });
  const refused = await post("/v1/advance", as("do-things-1"));
  expect(refused.statusCode).toBe(409);
  expect(refused.json()).toMatchObject({
    error: { code: "REFUSED", gates: [{ name: "gap", state: "pass" }, { name: "lag" }] },
  });
  expect((await post("/v1/advance", as("do-things-1"), { to: "nowhere" })).statusCode).toBe(400);
  // Whatever is wrong with a request, the answer has the one form.
  const missing = await post("/v1/clean", as("do-things-1"));
  expect(missing.statusCode).toBe(404);
  expect(missing.json()).toEqual({
    error: {
      code: "USAGE",
      message: "nothing answers POST /v1/clean",
      hint: "GET /v1/openapi.json lists what does.",
    },
  });
  const garbled = await server.inject({
    method: "POST",
    url: "/v1/advance",
    headers: { ...as("do-things-1"), "content-type": "application/json" },
    payload: "{to",
  });
  expect([garbled.statusCode, garbled.json()]).toMatchObject([400, { error: { code: "USAGE" } }]);
  const timeline = (await get("/v1/timeline", as("look-only-1"))).json() as { kind: string }[];
  expect(timeline.filter(({ kind }) => kind !== "denied")).toMatchObject([
    { kind: "approve", by: "anna" },
    { kind: "phase", by: "api@127.0.0.1" },
    { kind: "refused" },
  ]);
  expect(timeline.filter(({ kind }) => kind === "denied")).toMatchObject([
    {
      by: "api@127.0.0.1",
      detail: { method: "GET", path: "/v1/status", status: 401, why: "a bearer token is needed" },
    },
    { detail: { method: "POST", path: "/v1/advance", status: 403 } },
    { detail: { method: "POST", path: "/v1/approve", status: 403 } },
  ]);
});

test("who confirms what somebody else has done already is refused, and goes no step further", async () => {
  const plan = await itemsPlan();
  await startController(plan);
  const server = api(plan, undefined);
  const from = { phase: "off", canary_step: 0, epoch: 1 };
  const post = () => server.inject({ method: "POST", url: "/v1/advance", payload: { from } });
  const preview = await server.inject({
    method: "POST",
    url: "/v1/advance",
    payload: { dryRun: true },
  });
  expect(preview.json()).toMatchObject({ result: from });
  const answers = await Promise.all([post(), post()]);
  expect(new Set(answers.map((answer) => answer.statusCode))).toEqual(new Set([200, 409]));
  expect(answers.find((answer) => answer.statusCode === 409)?.json()).toMatchObject({
    error: {
      code: "REFUSED",
      message: expect.stringMatching(
        /^this was decided in off \(epoch 1\), but the migration is in dual-write \(epoch \d+\)$/,
      ) as string,
    },
  });
  expect((await server.inject({ url: "/v1/status" })).json()).toMatchObject({
    phase: "dual-write",
  });
});

test("before anything is installed the quarantine is empty, and there is none to work on", async () => {
  const plan = await itemsPlan();
  await startController(plan);
  const server = api(plan, undefined);
  const listed = await server.inject({ url: "/v1/quarantine" });
  expect([listed.statusCode, listed.json()]).toEqual([200, []]);
  const accept = { id: "1", reason: "an empty row" };
  for (const [kind, payload] of [
    ["quarantine-retry", {}],
    ["quarantine-accept", accept],
  ] as const) {
    const answer = await server.inject({ method: "POST", url: `/v1/${kind}`, payload });
    expect([answer.statusCode, answer.body], kind).toEqual([
      409,
      expect.stringContaining("in phase off nothing is mirrored"),
    ]);
  }
});

test("metrics, console and document", async () => {
  const plan = { ...(await itemsPlan()), name: "a <plan>" };
  await startController(plan);
  const server = api(plan, undefined);
  const metrics = (await server.inject({ url: "/metrics" })).body;
  expect(metrics).toContain('crossfade_phase{phase="off"} 1');
  expect(metrics).toContain('crossfade_database_up{side="new"} 1');
  expect(metrics).toContain("# TYPE crossfade_sidecar_requests_total counter");
  const page = await server.inject({ url: "/" });
  expect(page.headers["content-type"]).toContain("text/html");
  expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
  expect((await server.inject({ url: "/v1/session" })).json()).toEqual({
    plan: "a <plan>",
    tokens: false,
    name: null,
    role: "approver",
  });
  const document = (await server.inject({ url: "/v1/openapi.json" })).json() as {
    paths: Record<string, unknown>;
  };
  for (const kind of Object.keys(REQUESTS))
    expect(Object.hasOwn(document.paths, `/v1/${kind}`), kind).toBe(kind !== "clean");
});

test("without tokens: loopback only, and no web page may post", async () => {
  const plan = await itemsPlan();
  await startController(plan);
  const open: Plan = {
    ...plan,
    operate: { listen: { host: "0.0.0.0", port: 0 }, tokens: undefined },
  };
  await expect(startApi(options(open))).rejects.toMatchObject({ code: "PLAN_INVALID" });
  const server = api(plan, undefined);
  const foreign = await server.inject({
    method: "POST",
    url: "/v1/advance",
    headers: { origin: "http://evil.example" },
    payload: {},
  });
  expect(foreign.statusCode).toBe(403);
  const rebound = await server.inject({ url: "/v1/status", headers: { host: "evil.example" } });
  expect(rebound.statusCode).toBe(403);
  const own = await server.inject({
    method: "POST",
    url: "/v1/advance",
    headers: { host: "127.0.0.1:9100", origin: "http://127.0.0.1:9100" },
    payload: { dryRun: true },
  });
  expect(own.statusCode).toBe(200);
  expect(() => parseTokens("operator:short")).toThrow("operate.tokens");
  expect(() => parseTokens("root:long-enough")).not.toThrow("long-enough");
});

test("a port in use and a store that is away are said", async () => {
  const plan = await itemsPlan();
  const first = await startApi(options(plan));
  onTestFinished(() => first.close());
  const port = Number(new URL(first.url).port);
  const taken: Plan = {
    ...plan,
    operate: { listen: { host: "127.0.0.1", port }, tokens: undefined },
  };
  await expect(startApi(options(taken))).rejects.toMatchObject({
    code: "PORT_IN_USE",
    exitCode: 2,
  });
  const away: Plan = {
    ...plan,
    control: { database: "postgres://postgres:sesame@127.0.0.1:1/none", schema: "crossfade" },
  };
  const server = api(away, undefined);
  expect((await server.inject({ url: "/readyz" })).statusCode).toBe(503);
  expect(
    (await server.inject({ method: "POST", url: "/v1/advance", payload: {} })).statusCode,
  ).toBe(503);
});
