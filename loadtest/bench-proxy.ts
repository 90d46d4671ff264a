import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import autocannon from "autocannon";
import { freePort } from "../examples/support/free-port.ts";
import { benchOptions, printReport, Recorder } from "./bench.ts";
import { causalCost, untilAnswers } from "./causal-cost.ts";
import { PROXY_NODE_FLAGS } from "../cli/proxy-processes.ts";
import { startRole, untilReady } from "./cli.ts";
import { allowedConnections, openIdle } from "./idle-connections.ts";
import { rssMb } from "./memory.ts";
import { startNginx } from "./nginx.ts";
import { paced } from "./paced.ts";
import { startBenchWorld, execute } from "./world.ts";

/**
 * 1 KB GET: what the sidecar adds to the median at 500 requests/s, and requests/s at saturation, beside going direct, nginx, a
 * bare undici proxy and plain @fastify/http-proxy. Every target is a process of its own; rounds alternate. Then the sidecar's
 * memory under many idle connections, and what `consistency: causal` costs.
 */
const options = benchOptions();
const ROUNDS = options.quick ? 1 : 5;
const SECONDS = options.quick ? 2 : 5;
const RATE = 500;
const IDLE = 10_000;

const world = await startBenchWorld();
const recorder = new Recorder();
const upstream = await startProcess("http-upstream.ts");
const undici = await startProcess("reference-proxies.ts", "undici", upstream.url);
const httpProxy = await startProcess("reference-proxies.ts", "http-proxy", upstream.url);
const nginx = await startNginx(upstream.url);
if (nginx === undefined) note("nginx is not installed: no vs_nginx");
const port = await freePort();
await execute(world.oldUrl, "create table t (id int primary key)");
await execute(world.newUrl, "create table t (id int primary key)");
const { file } = world.writePlan({
  old: { database: world.oldUrl, app: upstream.url },
  new: { database: world.newUrl, app: upstream.url },
  forward: { t: { from: "t" } },
  proxy: { listen: `127.0.0.1:${port}`, client: { by: ["header:authorization", "ip"] } },
  // Both sides are one app that does no work: there is little to compare before going on.
  shadow: { sample: "100%" },
  canary: { steps: ["50%"], stay: "1ms" },
  gates: { shadow: { samples: 1 }, canary: { samples: 0 } },
});
const roles = [startRole("control", file)];
try {
  await untilReady(file);
  const proxy = startRole("proxy", file);
  roles.push(proxy);
  const sidecar = `http://127.0.0.1:${port}`;
  await untilAnswers(sidecar);
  const targets = {
    direct: upstream.url,
    ...(nginx === undefined ? {} : { nginx: nginx.url }),
    undici: undici.url,
    http_proxy: httpProxy.url,
    sidecar,
  };
  for (const url of Object.values(targets)) {
    await untilAnswers(url);
    await load(url, { connections: 32, duration: options.quick ? 3 : 5 });
  }
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, url] of Object.entries(targets)) {
      const calm = await paced(url, { rate: RATE, seconds: SECONDS, method: "GET" });
      recorder.add(`${name} p50 at ${RATE}/s`, "ms", calm.p50);
      recorder.add(`${name} p99 at ${RATE}/s`, "ms", calm.p99);
      const full = await load(url, { connections: 32, duration: SECONDS });
      recorder.add(`${name} saturated`, "requests/s", full.rate);
    }
  }
  await memory(sidecar, proxy.pid);
  roles.push(startRole("mirror", file), startRole("backfill", file));
  await proxy.stop();
  const cost = await causalCost(file, { rounds: ROUNDS, seconds: options.quick ? 1 : 5 });
  for (const [name, ms] of Object.entries(cost)) recorder.add(name, "ms", ms);
} finally {
  await Promise.all(roles.map((role) => role.stop()));
  for (const child of [upstream, undici, httpProxy]) child.stop();
  await nginx?.stop();
  await world.stop();
}
const p50 = (name: string) => recorder.median(`${name} p50 at ${RATE}/s`);
const p99 = (name: string) => recorder.median(`${name} p99 at ${RATE}/s`);
const saturated = (name: string) => recorder.median(`${name} saturated`);
const added = (name: string) => p50(name) - p50("direct");
const proxies = ["sidecar", "undici", ...(nginx === undefined ? [] : ["nginx"])];
for (const name of proxies) recorder.add(`${name} added to the median`, "ms", added(name));
printReport(
  {
    bench: "proxy",
    rounds: ROUNDS,
    results: recorder.results(),
    ratios: {
      vs_undici: saturated("sidecar") / saturated("undici"),
      vs_http_proxy: saturated("sidecar") / saturated("http_proxy"),
      p99_vs_undici: p99("sidecar") / p99("undici"),
      ...vsNginx(),
    },
  },
  options,
);

/** Resident memory of the sidecar with many idle connections and load besides. */
async function memory(url: string, pid: number): Promise<void> {
  const count = allowedConnections(IDLE);
  if (count < IDLE)
    note(`the limit of open files (ulimit -n) allows ${count} idle connections, not ${IDLE}`);
  const idle = await openIdle(url, count);
  try {
    await load(url, { connections: 32, duration: SECONDS });
    recorder.add("rss_mb", "MB", await rssMb(pid));
    recorder.add("idle connections", "connections", idle.open());
  } finally {
    idle.close();
  }
}

/** What either adds to the median: less is better, unlike the ratios of throughput. */
function vsNginx(): { vs_nginx?: number } {
  if (nginx === undefined) return {};
  if (added("nginx") > 0) return { vs_nginx: added("sidecar") / added("nginx") };
  note("nginx added nothing to the median: the machine is too loaded for vs_nginx");
  return {};
}

function note(text: string): void {
  process.stderr.write(`${text}\n`);
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
  // The references run as the sidecar does.
  const flags = script === "reference-proxies.ts" ? PROXY_NODE_FLAGS : [];
  const child = spawn(
    process.execPath,
    [...flags, fileURLToPath(new URL(script, import.meta.url)), ...args],
    { stdio: ["ignore", "pipe", "inherit", "ipc"] },
  );
  const [line] = (await once(
    createInterface({ input: child.stdout as NodeJS.ReadableStream }),
    "line",
  )) as [string];
  return { url: `http://127.0.0.1:${line}`, stop: () => child.disconnect() };
}
