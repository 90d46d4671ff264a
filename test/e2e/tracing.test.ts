import { execFileSync } from "node:child_process";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { Log } from "../../config/lifecycle.ts";
import type { Plan, TracePlan } from "../../config/plan-types.ts";
import { runMirrorRole } from "../../proxy/mirror/role.ts";
import { openSidecarTracing } from "../../proxy/trace/ports.ts";
import { startSidecar } from "../../proxy/sidecar.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import { install } from "../../store/control/schema.ts";
import { openTestStore } from "../support/control.ts";
import { withClient } from "../support/databases.ts";
import { itemsPlan } from "../support/controller-world.ts";
import { type OtlpReceiver, startOtlpReceiver } from "../support/otlp-receiver.ts";
import { runRole } from "../support/proxy-world.ts";
import { freePort } from "../../examples/support/free-port.ts";
import {
  HandFences,
  HandSource,
  makePlan,
  quietLog,
  send,
  startApp,
  startTestSidecar,
  STATE,
  type TestApp,
} from "../support/sidecar.ts";
import { installWorld } from "../support/sync-world.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT = { traceparent: `00-${TRACE}-00f067aa0ba902b7-01`, tracestate: "vendor=t61rcWkgMzE" };

test("without a collector the trace context goes to the app as it came, and no library is loaded", async () => {
  const app = await startApp("old");
  const { url } = await startTestSidecar({ old: app });
  await send(`${url}/`, { method: "POST", body: "x", headers: CLIENT });
  expect(app.seen[0]?.headers).toMatchObject(CLIENT);
  expect(app.seen[0]?.rawHeaders.filter((name) => /^trace/i.test(name))).toHaveLength(2);
  const script = `await import("./proxy/role.ts"); await import("./proxy/mirror/role.ts");
    const { createRequire } = await import("node:module");
    console.log(Object.keys(createRequire("/").cache).filter((path) => path.includes("opentelemetry")).length);`;
  const loaded = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
    cwd: resolve(import.meta.dirname, "../.."),
    encoding: "utf8",
  });
  expect(loaded.trim()).toBe("0");
});

test.for(["trigger", "wal"] as const)(
  "request, app, fence and mirror are one trace, with the %s feed",
  async (feed) => {
    const receiver = await startOtlpReceiver();
    const app = await startApp("old");
    const plan = await mirroredPlan({ feed, app, trace: { otlp: receiver.url, sample: 1 } });
    const { url } = await runRole(plan);

    const answer = await send(`${url}/items/3?token=s3cret`, {
      method: "PUT",
      body: "x",
      headers: { ...CLIENT, authorization: "Bearer s3cret" },
    });
    expect(answer.headers["crossfade-mirrored"]).toBe("yes");
    const named = (name: string) =>
      receiver.spans.find((span) => span.traceId === TRACE && span.name === name);
    await expect
      .poll(
        () => ["PUT other", "PUT old app", "fence", "mirror pass"].map((name) => named(name)?.name),
        {
          timeout: 20_000,
        },
      )
      .not.toContain(undefined);

    const [request, asked, fence, pass] = [
      named("PUT other"),
      named("PUT old app"),
      named("fence"),
      named("mirror pass"),
    ];
    expect(request?.parentSpanId).toBe("00f067aa0ba902b7");
    expect(asked?.parentSpanId).toBe(request?.spanId);
    expect(fence?.parentSpanId).toBe(request?.spanId);
    expect(pass?.parentSpanId).toBe(fence?.spanId);
    expect(app.seen[0]?.headers).toMatchObject({
      traceparent: `00-${TRACE}-${asked?.spanId}-01`,
      tracestate: CLIENT.tracestate,
    });
    expect(request?.attributes).toMatchObject({
      "http.request.method": "PUT",
      "url.path": "/items/3",
      "http.response.status_code": 200,
      "crossfade.side": "old",
      "crossfade.phase": "shadow",
      "crossfade.epoch": 1,
    });
    expect(fence?.attributes).toMatchObject({ "crossfade.side": "old", "crossfade.passed": true });
    expect(fence?.events).toEqual(["written"]);
    expect(fence?.attributes["crossfade.fence"]).toMatch(/^[1-9]\d*$/);
    expect(Number(pass?.attributes["crossfade.fence"])).toBeGreaterThanOrEqual(
      Number(fence?.attributes["crossfade.fence"]),
    );
    expect(pass?.attributes).toMatchObject({ "crossfade.direction": "forward" });
    expect([request?.resource["crossfade.role"], pass?.resource["crossfade.role"]]).toEqual([
      "proxy",
      "mirror",
    ]);
    expect(request?.resource).toMatchObject({
      "service.name": "crossfade",
      "crossfade.plan": "test",
    });
    expect(receiver.raw()).not.toContain("s3cret");
  },
);

test("who is not recorded stays so, and what is no trace context begins a new one", async () => {
  const { receiver, url, app, fences } = await traced();
  const unrecorded = CLIENT.traceparent.replace(/01$/, "00");
  await send(`${url}/a`, {
    method: "POST",
    body: "x",
    headers: { ...CLIENT, traceparent: unrecorded },
  });
  await send(`${url}/b`, { headers: { ...CLIENT, traceparent: "00-nonsense" } });
  await send(`${url}/c`, { headers: { tracestate: "vendor=1" } });

  const [a, b, c] = app.seen.map(({ headers }) => headers);
  expect(a?.["traceparent"]).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-00$`));
  expect(a?.["tracestate"]).toBe(CLIENT.tracestate);
  expect(fences.traces).toEqual([]);
  for (const headers of [b, c]) {
    expect(headers?.["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(headers?.["traceparent"]).not.toContain(TRACE);
    expect(headers?.["tracestate"]).toBeUndefined();
  }
  await expect
    .poll(() => receiver.spans.map((span) => span.attributes["url.path"]), { timeout: 20_000 })
    .toEqual(expect.arrayContaining(["/b", "/c"]));
  expect(receiver.spans.filter((span) => span.traceId === TRACE)).toEqual([]);
});

test("a read that new fails and old answers shows both", async () => {
  const broken = await startApp("new", (_, response) => response.writeHead(500).end());
  const { receiver, url } = await traced({ new: broken, phase: "canary" });
  expect((await send(`${url}/items/1`, { headers: { ...CLIENT, cookie: "sid=a" } })).status).toBe(
    200,
  );
  const asked = () =>
    receiver.spans
      .filter((span) => span.name.endsWith(" app"))
      .map((span) => [span.name, span.attributes["http.response.status_code"], span.isError]);
  await expect.poll(asked, { timeout: 20_000 }).toHaveLength(2);
  expect(asked()).toEqual([
    ["GET new app", 500, true],
    ["GET old app", 200, false],
  ]);
  // It ends last, and may be told of later.
  const whole = () => receiver.spans.find((span) => span.name === "GET other");
  await expect.poll(whole).toMatchObject({ isError: false });
});

test("a fence that never passes is seen when the sidecar stops; a held write says so", async () => {
  const { receiver, url, source, fences, sidecar, stop } = await traced();
  fences.follow = false;
  source.hold(1, 60_000);
  const held = send(`${url}/items/1`, { method: "PUT", body: "x" });
  await expect.poll(() => sidecar.stats().held.now).toBe(1);
  source.set({ hold: null });
  await held;
  await stop();
  const named = (name: string) => receiver.spans.find((span) => span.name === name);
  expect(named("PUT other")?.events).toEqual(["held", "released"]);
  expect(named("fence")).toMatchObject({
    isError: true,
    attributes: { "crossfade.passed": false },
  });
});

test("a collector that hangs or is away costs no request and no stop, and is named once", async () => {
  const silent = createServer();
  await new Promise<void>((done) => silent.listen(0, "127.0.0.1", done));
  onTestFinished(() => void silent.close());
  const { port } = silent.address() as AddressInfo;
  const said: string[] = [];
  const log: Log = { ...quietLog, warn: (_: object, message: string) => void said.push(message) };
  for (const otlp of [`http://127.0.0.1:${port}`, "http://127.0.0.1:9"]) {
    const { url, stop } = await traced({ otlp, log });
    for (let i = 0; i < 20; i++) expect((await send(`${url}/`)).status).toBe(200);
    await stop();
  }
  expect(said.filter((message) => message.startsWith("traces:")).length).toBeLessThanOrEqual(2);
});

interface Traced {
  readonly otlp?: string;
  readonly log?: Log;
  readonly new?: TestApp;
  readonly phase?: "canary";
}

/** A sidecar that sends its spans, with fences in memory. */
async function traced(options: Traced = {}) {
  const receiver: OtlpReceiver = await startOtlpReceiver();
  const app = await startApp("old");
  const folder = "/nonexistent";
  const plan: Plan = {
    // What waits for a fence does so for as long as gates.lag.
    ...makePlan(folder, {
      old: app,
      ...(options.new === undefined ? {} : { new: options.new }),
      lagMs: 300,
    }),
    trace: { otlp: options.otlp ?? receiver.url, sample: 1 },
  };
  const source = new HandSource({
    ...STATE,
    ...(options.phase === undefined ? {} : { phase: options.phase, readsNew: 1 }),
  });
  const fences = new RecordingFences(source);
  const log = options.log ?? quietLog;
  const sidecar = await startSidecar({
    plan: { ...plan, proxy: { ...plan.proxy, consistency: options.phase ? "eventual" : "strict" } },
    source,
    fences,
    log,
    limits: { drainMs: 200 },
    tracing: await openSidecarTracing(plan, "test", log),
  });
  const stop = () => sidecar.close();
  onTestFinished(stop);
  return { receiver, app, source, fences, sidecar, stop, url: sidecar.url };
}

class RecordingFences extends HandFences {
  readonly traces: string[] = [];

  override async write(side: "old" | "new", traces: readonly string[] = []) {
    this.traces.push(...traces);
    return super.write(side);
  }
}

/** Items that a real mirror carries over, in shadow; answers to writes wait until they are in both schemas. */
async function mirroredPlan({
  feed,
  app,
  trace,
}: {
  feed: Plan["feed"];
  app: TestApp;
  trace: TracePlan;
}): Promise<Plan> {
  const bare = await itemsPlan({ feed });
  const plan: Plan = {
    ...bare,
    trace,
    reverse: undefined,
    old: { ...bare.old, app: app.url },
    proxy: {
      ...bare.proxy,
      consistency: "strict",
      listen: { host: "127.0.0.1", port: await freePort() },
    },
  };
  const store = openTestStore(plan.control.database, { plan: plan.name });
  await install(store);
  await installWorld(plan, "forward");
  await setMigration(store, await readMigration(store), { phase: "shadow" });
  await withClient(plan.old.database, (client) =>
    client.query("update items set note = 'changed' where id = 3"),
  );
  const abort = new AbortController();
  const mirror = runMirrorRole({ plan, log: quietLog, signal: abort.signal });
  onTestFinished(async () => {
    abort.abort();
    await mirror;
  });
  return plan;
}
