import { openScene, type Scene } from "../../examples/demo/scene.ts";
import { createWorkspace } from "../../examples/demo/workspace.ts";
import { startTraffic, type Traffic } from "../../examples/support/traffic.ts";
import { type Phase, phaseIndex, PHASES } from "../../config/words.ts";
import type { Receipt } from "../../store/control/history.ts";
import { Target } from "./cannon.ts";
import { measureWorkload, shotsOf, type Strength } from "./measure.ts";
import { LoadProgress } from "./progress.ts";
import { type Cell, type FlipsUnderLoad, WORKLOADS } from "./report.ts";
import { CHECKED_USERS, colonycraftRequests, type ColonycraftData, loadData } from "./workloads.ts";

export interface ExampleResult {
  readonly cells: Cell[];
  readonly flips: FlipsUnderLoad | null;
  readonly checked: { readonly failed: number; readonly stale: number };
}

export interface ExampleOptions extends Strength {
  readonly phases: readonly Phase[];
  readonly conversations: number;
  /** Flips to and fro once write-new was measured. */
  readonly flips: number;
  readonly signal: AbortSignal;
}

/**
 * Between measurements: enough for the gates of shadow and canary, and every answer is checked. Canary begins with 10 % of
 * clients: of so many, some are surely among them.
 */
const CHECKED_TRAFFIC = { ratePerSecond: 150, clients: CHECKED_USERS };
/** Between two flips, so that the load sees both sides. */
const FLIP_PAUSE_MS = 500;
/** Few, each without a pause: a steady stream, not an overload. */
const FLIP_CONNECTIONS = 4;

/** Starts the example, walks it to the last of `phases` and measures each of them on the way. */
export async function runExample(options: ExampleOptions): Promise<ExampleResult> {
  const { phases, signal, conversations } = options;
  const workspace = createWorkspace();
  await using stack = new AsyncDisposableStack();
  let keepLogs = true;
  stack.defer(() => workspace.remove({ keepLogs }));
  using progress = new LoadProgress(phases.length * WORKLOADS.length * shotsOf(options, 2));
  const say = (text: string) => progress.say(text);
  const scene = await openScene({ workspace, conversations, signal, say }, stack);
  const traffic = startTraffic({
    baseUrl: scene.urls.sidecar,
    users: scene.users.slice(0, CHECKED_USERS),
    ...CHECKED_TRAFFIC,
  });
  stack.defer(() => traffic.stop().catch(() => undefined));
  const data = loadData(scene.users, conversations);
  const run: Run = { scene, traffic, progress, options, data };
  const cells: Cell[] = [];
  let flips: FlipsUnderLoad | null = null;
  const last = Math.max(...phases.map(phaseIndex));
  for (const phase of PHASES.slice(0, last + 1)) {
    if (phase !== "off") await advance(run, phase);
    if (phases.includes(phase)) cells.push(...(await measurePhase(run, phase)));
    if (phase === "write-new" && phases.includes(phase)) flips = await flipUnderLoad(run);
  }
  await traffic.stop();
  const { failed, reads } = traffic.counters;
  keepLogs = false;
  return { cells, flips, checked: { failed, stale: reads.stale } };
}

interface Run {
  readonly scene: Scene;
  readonly traffic: Traffic;
  readonly progress: LoadProgress;
  readonly options: ExampleOptions;
  readonly data: ColonycraftData;
}

async function advance({ scene, progress }: Run, to: Phase): Promise<void> {
  progress.say(`crossfade advance --to ${to} --wait`);
  await Promise.race([scene.cli.run("advance", "--to", to, "--wait"), scene.broken]);
}

async function measurePhase(run: Run, phase: Phase): Promise<Cell[]> {
  const { scene, traffic, options, data } = run;
  const { urls } = scene;
  await traffic.pause();
  const cells: Cell[] = [];
  for (const workload of WORKLOADS) {
    const measured = measureWorkload(
      {
        phase,
        workload,
        direct: urls[directApp(phase, workload)],
        through: urls.sidecar,
        requests: colonycraftRequests(data, workload, options.connections),
      },
      options,
      { progress: run.progress, signal: options.signal },
    );
    cells.push(...(await Promise.race([measured, scene.broken])));
  }
  traffic.resume();
  return cells;
}

/** The app that could answer the whole workload by itself in this phase: the guard refuses writes to the other one. */
function directApp(phase: Phase, workload: (typeof WORKLOADS)[number]): "oldApp" | "newApp" {
  const from: Phase = workload === "read" ? "read-new" : "write-new";
  return phaseIndex(phase) >= phaseIndex(from) ? "newApp" : "oldApp";
}

/** From write-new back to read-new and forward again, while the mixed load goes on. Ends in write-new. */
async function flipUnderLoad(run: Run): Promise<FlipsUnderLoad> {
  const { scene, traffic, progress, options, data } = run;
  await traffic.pause();
  const target = new Target();
  const end = new AbortController();
  const load = target.shoot({
    url: scene.urls.sidecar,
    // Without a pause: what autocannon sends at a fixed rate comes in bursts, and a flip may fall between two of them.
    connections: FLIP_CONNECTIONS,
    rate: undefined,
    seconds: 3_600,
    requests: colonycraftRequests(data, "mixed", FLIP_CONNECTIONS),
    signal: AbortSignal.any([end.signal, options.signal]),
  });
  const receipts: Receipt[] = [];
  try {
    for (let flip = 0; flip < options.flips; flip += 1) {
      progress.say(`flips under load: ${flip + 1}/${options.flips}`);
      await new Promise((resolve) => setTimeout(resolve, FLIP_PAUSE_MS));
      const [verb, to] = flip % 2 === 0 ? ["rollback", "read-new"] : ["advance", "write-new"];
      const command = scene.cli.run<{ receipt: Receipt | null }>(verb, "--to", to, "--wait");
      const { receipt } = await Promise.race([command, scene.broken]);
      if (receipt !== null) receipts.push(receipt);
    }
  } finally {
    end.abort();
    await load.catch((error: unknown) => {
      if (!end.signal.aborted) throw error;
    });
    options.signal.throwIfAborted();
  }
  traffic.resume();
  return { receipts, figures: target.figures() };
}
