import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import autocannon from "autocannon";
import { freePort } from "../examples/support/embedded-postgres.ts";
import { Pool } from "undici";
import { benchOptions, percentile, printReport, Recorder } from "./bench.ts";
import { startRole, untilReady } from "./cli.ts";
import { startBenchWorld, execute } from "./world.ts";

/**
 * 1 KB GET: what the sidecar adds to the median at 500 requests/s, and requests/s at saturation, beside going direct, a
 * bare undici proxy and plain @fastify/http-proxy. Every target is a process of its own; rounds alternate.
 */
const options = benchOptions();
const ROUNDS = options.quick ? 1 : 5;
const SECONDS = options.quick ? 3 : 5;
const RATE = 500;

const world = await startBenchWorld();
const recorder = new Recorder();
const upstream = await startProcess("http-upstream.ts");
const undici = await startProcess("reference-proxies.ts", "undici", upstream.url);
const httpProxy = await startProcess("reference-proxies.ts", "http-proxy", upstream.url);
const port = await freePort();
await execute(world.oldUrl, "create table t (id int primary key)");
await execute(world.newUrl, "create table t (id int primary key)");
const { file } = world.writePlan({
  old: { database: world.oldUrl, app: upstream.url },
  new: { database: world.newUrl, app: upstream.url },
  forward: { t: { from: "t" } },
  proxy: { listen: `127.0.0.1:${port}` },
});
const roles = [startRole("control", file)];
try {
  await untilReady(file);
  roles.push(startRole("proxy", file));
  const sidecar = `http://127.0.0.1:${port}`;
  await untilAnswers(sidecar);
  const targets = { direct: upstream.url, undici: undici.url, http_proxy: httpProxy.url, sidecar };
  for (const url of Object.values(targets)) await load(url, { connections: 32, duration: 2 });
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, url] of Object.entries(targets)) {
      const calm = await paced(url);
      recorder.add(`${name} p50 at ${RATE}/s`, "ms", calm.p50);
      recorder.add(`${name} p99 at ${RATE}/s`, "ms", calm.p99);
      const full = await load(url, { connections: 32, duration: SECONDS });
      recorder.add(`${name} saturated`, "requests/s", full.rate);
    }
  }
} finally {
  await Promise.all(roles.map((role) => role.stop()));
  for (const child of [upstream, undici, httpProxy]) child.stop();
  await world.stop();
}
const p50 = (name: string) => recorder.median(`${name} p50 at ${RATE}/s`);
recorder.add("sidecar added to the median", "ms", p50("sidecar") - p50("direct"));
recorder.add("undici added to the median", "ms", p50("undici") - p50("direct"));
printReport(
  {
    bench: "proxy",
    rounds: ROUNDS,
    results: recorder.results(),
    ratios: {
      vs_undici: recorder.median("sidecar saturated") / recorder.median("undici saturated"),
      vs_http_proxy: recorder.median("sidecar saturated") / recorder.median("http_proxy saturated"),
    },
  },
  options,
);

/** One request every 2 ms, evenly: a load generator that sends in bursts measures its own queue. */
async function paced(url: string): Promise<{ p50: number; p99: number }> {
  const pool = new Pool(url, { connections: 10 });
  const delays: number[] = [];
  const running: Promise<void>[] = [];
  const started = performance.now();
  for (let n = 0; n < RATE * SECONDS; n += 1) {
    const due = started + (n * 1_000) / RATE;
    while (performance.now() < due)
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    running.push(timed(pool, delays));
  }
  await Promise.all(running);
  await pool.close();
  return { p50: percentile(delays, 0.5), p99: percentile(delays, 0.99) };
}

async function timed(pool: Pool, delays: number[]): Promise<void> {
  const sent = performance.now();
  const { statusCode, body } = await pool.request({ method: "GET", path: "/" });
  await body.arrayBuffer();
  if (statusCode !== 200) throw new Error(`answered ${statusCode}`);
  delays.push(performance.now() - sent);
}

async function load(
  url: string,
  how: { connections: number; duration: number },
): Promise<{ rate: number }> {
  const result = await autocannon({ url, ...how });
  if (result.errors > 0 || result.non2xx > 0)
    throw new Error(`${url}: ${result.errors} errors, ${result.non2xx} answers that are not 2xx`);
  return { rate: result.requests.average };
}

async function startProcess(
  script: string,
  ...args: string[]
): Promise<{ url: string; stop(): void }> {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL(script, import.meta.url)), ...args],
    { stdio: ["ignore", "pipe", "inherit", "ipc"] },
  );
  const [line] = (await once(
    createInterface({ input: child.stdout as NodeJS.ReadableStream }),
    "line",
  )) as [string];
  return { url: `http://127.0.0.1:${line}`, stop: () => child.disconnect() };
}

async function untilAnswers(url: string): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${url} does not answer`);
}
