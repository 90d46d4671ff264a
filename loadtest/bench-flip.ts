import { parseArgs } from "node:util";
import { createWorkspace } from "../examples/demo/workspace.ts";
import { startTraffic } from "../examples/support/traffic.ts";
import type { Receipt } from "../store/control/history.ts";
import { percentile, printReport, Recorder } from "./bench.ts";
import { openFlipWorld } from "./flip-world.ts";

/**
 * Flips to and fro under 500 requests/s of mixed traffic that reads back what it wrote, through several sidecars: how long
 * writes were held, whether any request failed, and what each step took. Everything runs as its own process, on this machine.
 */
const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    flips: { type: "string" },
    sidecars: { type: "string", default: "3" },
    tables: { type: "string", default: "4" },
  },
});
const FLIPS = Number(values.flips ?? (values.quick ? 6 : 50));
const SIDECARS = Number(values.sidecars);
const RATE = 500;
const CLIENTS = 16;
const WALK = ["dual-write", "backfill", "verify", "shadow", "canary", "read-new"] as const;

interface Command {
  readonly id: number;
  readonly state: string;
  readonly error?: { readonly code: string };
}

const workspace = createWorkspace();
const recorder = new Recorder();
const flips: Receipt[] = [];
const held: number[] = [];
const seen = new Set<string>();
let undone = 0;
let failed = 0;
let stale = 0;
{
  await using stack = new AsyncDisposableStack();
  stack.defer(() => workspace.remove({ keepLogs: false }));
  const world = await openFlipWorld(
    { workspace, sidecars: SIDECARS, tables: Number(values.tables) },
    stack,
  );
  // A client stays with its sidecar and its users, as behind a load balancer.
  const traffics = world.sidecars.map((baseUrl, n) =>
    startTraffic({
      baseUrl,
      users: world.users.filter((_, i) => i % SIDECARS === n),
      ratePerSecond: RATE / SIDECARS,
      clients: Math.ceil(CLIENTS / SIDECARS),
      seed: n + 1,
    }),
  );
  // The gate of shadow wants samples, so the traffic runs from the beginning.
  for (const phase of WALK) await command("advance", { to: phase, wait: true });
  await pause(2_000);
  for (let flip = 0; flip < FLIPS; flip += 1) {
    await (flip % 2 === 0
      ? command("advance", { to: "write-new", wait: true })
      : command("rollback", { to: "read-new", wait: true }));
    await pause(values.quick ? 500 : 1_000);
    await note();
  }
  await Promise.all(traffics.map((traffic) => traffic.stop()));
  for (const { counters } of traffics) {
    failed += counters.failed;
    stale += counters.reads.stale;
    for (const example of [...counters.stales, ...counters.failures])
      process.stderr.write(`${JSON.stringify(example)}\n`);
  }
  /** What has been flipped since the last look. */
  async function note(): Promise<void> {
    const answer = await fetch(`${world.operate}/v1/receipts`);
    for (const receipt of (await answer.json()) as (Receipt & { readonly at: string })[]) {
      if (receipt.kind === "drill" || seen.has(receipt.at)) continue;
      seen.add(receipt.at);
      if (receipt.ok) {
        flips.push(receipt);
        held.push(...(await world.held()));
      } else process.stderr.write(`a ${receipt.kind} was undone: ${receipt.why}\n`);
      if (!receipt.ok) undone += 1;
    }
  }

  /** Waits for its end. An undone flip is asked for again: it is counted, and no failure. */
  async function command(kind: string, body: object): Promise<void> {
    for (;;) {
      const response = await fetch(`${world.operate}/v1/${kind}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      let done = (await response.json()) as Command;
      while (done.state === "running" || done.state === "queued") {
        await pause(200);
        done = (await (await fetch(`${world.operate}/v1/commands/${done.id}`)).json()) as Command;
      }
      if (done.state === "done") return;
      if (done.error?.code !== "FLIP_UNDONE") throw new Error(`${kind}: ${JSON.stringify(done)}`);
    }
  }
}
const longest = flips.map(({ hold_ms: hold }) => hold?.max ?? Number.NaN);
for (const hold of longest) recorder.add("hold of one flip, longest", "ms", hold);
for (const share of [0.5, 0.9, 0.99])
  recorder.add(`hold of one flip, longest, p${share * 100}`, "ms", percentile(longest, share));
recorder.add("hold_max", "ms", Math.max(...longest));
recorder.add("hold_p99", "ms", percentile(held, 0.99));
recorder.add("held", "requests", held.length);
recorder.add("failed", "requests", failed);
recorder.add("stale", "reads", stale);
recorder.add("flips", "flips", flips.length);
recorder.add("undone", "flips", undone);
for (const { steps } of flips)
  for (const { name, ms } of steps) recorder.add(`step ${name}`, "ms", ms);
printReport(
  { bench: "flip", rounds: 1, results: recorder.results(), ratios: {} },
  { json: values.json, quick: values.quick },
);
process.exitCode = failed === 0 && stale === 0 ? 0 : 1;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
