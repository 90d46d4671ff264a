import { createWorkspace } from "../examples/demo/workspace.ts";
import { openScene, type Scene } from "../examples/demo/scene.ts";
import { startTraffic } from "../examples/support/traffic.ts";
import type { Receipt } from "../store/control/history.ts";
import { benchOptions, percentile, printReport, Recorder } from "./bench.ts";

/**
 * Flips to and fro under 500 requests/s of mixed traffic that reads back what it wrote: how long writes were held, and
 * whether any request failed. Everything runs as its own process, on this machine.
 */
const options = benchOptions();
const FLIPS = options.quick ? 6 : 50;
const RATE = 500;
const WALK = ["dual-write", "backfill", "verify", "shadow", "canary", "read-new"] as const;

const workspace = createWorkspace();
const abort = new AbortController();
const recorder = new Recorder();
const holds: number[] = [];
const p99s: number[] = [];
let failed = 0;
let stale = 0;
{
  await using stack = new AsyncDisposableStack();
  stack.defer(() => workspace.remove({ keepLogs: false }));
  const scene = await openScene(
    { workspace, conversations: 2_000, signal: abort.signal, say: () => {} },
    stack,
  );
  const traffic = startTraffic({
    baseUrl: scene.urls.sidecar,
    users: scene.users,
    ratePerSecond: RATE,
    // Enough that some are surely among the 5 % of clients with which canary begins.
    clients: 100,
  });
  // The gate of shadow wants samples, so the traffic runs from the beginning.
  for (const phase of WALK) await command(scene, "advance", { to: phase, wait: true });
  await pause(2_000);
  for (let flip = 0; flip < FLIPS; flip += 1) {
    await (flip % 2 === 0
      ? command(scene, "advance", { to: "write-new", wait: true })
      : command(scene, "rollback", { to: "read-new" }));
    await pause(options.quick ? 500 : 1_000);
  }
  await traffic.stop();
  ({ failed } = traffic.counters);
  stale = traffic.counters.reads.stale;
  for (const example of [...traffic.counters.stales, ...traffic.counters.failures])
    process.stderr.write(`${JSON.stringify(example)}\n`);
  for (const receipt of await receipts(scene)) {
    if (receipt.kind === "drill") continue;
    if (!receipt.ok) throw new Error(`a ${receipt.kind} was undone: ${receipt.why}`);
    holds.push(receipt.hold_ms?.max ?? Number.NaN);
    p99s.push(receipt.hold_ms?.p99 ?? Number.NaN);
  }
}
for (const hold of holds) recorder.add("hold of one flip, longest", "ms", hold);
recorder.add("hold_max", "ms", Math.max(...holds));
recorder.add("hold_p99", "ms", percentile(p99s, 0.99));
recorder.add("failed", "requests", failed);
recorder.add("stale", "reads", stale);
recorder.add("flips", "flips", holds.length);
printReport({ bench: "flip", rounds: 1, results: recorder.results(), ratios: {} }, options);
process.exitCode = failed === 0 && stale === 0 ? 0 : 1;

async function command(scene: Scene, kind: string, body: object): Promise<void> {
  const answer = await fetch(`${scene.urls.operate}/v1/${kind}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${kind}: ${answer.status} ${text}`);
}

async function receipts(scene: Scene): Promise<Receipt[]> {
  const answer = await fetch(`${scene.urls.operate}/v1/receipts`);
  return (await answer.json()) as Receipt[];
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
