import { join } from "node:path";
import { messageOf } from "../../config/errors.ts";
import { type Phase, PHASES } from "../../config/words.ts";
import { StepFailed } from "../../examples/demo/failure.ts";
import { pause } from "../../examples/demo/interrupt.ts";
import { openScene, type Scene } from "../../examples/demo/scene.ts";
import type { Workspace } from "../../examples/demo/workspace.ts";
import { checkBothSchemas, type CheckResult } from "../../examples/support/check-schemas.ts";
import { startTraffic, type Traffic } from "../../examples/support/traffic.ts";
import type { TrafficCounters } from "../../examples/support/traffic-counters.ts";
import type { Receipt } from "../../store/control/history.ts";
import { EventStreams } from "./event-streams.ts";
import { MemoryWatch } from "./memory-watch.ts";
import type { SoakOptions } from "./options.ts";
import { EchoSockets } from "./sockets.ts";
import { Trouble } from "./trouble.ts";
import { Uploads } from "./uploads.ts";
import type { FlipFindings, SoakFindings } from "./verdict.ts";

/** What went wrong, for a reader: the verdict needs only the counts. */
export interface SoakTrouble {
  readonly traffic: Pick<TrafficCounters, "failures" | "stales">;
  readonly lost: CheckResult["examples"];
  readonly others: Trouble["incidents"];
}

export interface SoakRun {
  readonly options: SoakOptions;
  readonly workspace: Workspace;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

const CONVERSATIONS = 5_000;
/**
 * Moderate: what is asked is whether anything goes wrong, not how much goes through. Canary begins with 10 % of clients: of so
 * many, some are surely among them.
 */
const TRAFFIC = { ratePerSecond: 150, clients: 100 };
const RETRY_MS = 3_000;
/** The example's apps, each with WebSockets, uploads and event streams besides. */
const APPS = {
  old: join(import.meta.dirname, "old-app.ts"),
  new: join(import.meta.dirname, "new-app.ts"),
};
/** An event stream is no read that could be asked of either side; it stays where it is when the authority moves. */
const ROUTES = [{ match: "GET /soak/events", kind: "stream" }];

/** The whole soak. Resolves with what was found out when nothing of it runs any more. */
export async function runSoak(
  run: SoakRun,
): Promise<{ findings: SoakFindings; trouble: SoakTrouble }> {
  const { options, workspace, signal, say } = run;
  await using stack = new AsyncDisposableStack();
  const scene = await openScene(
    { workspace, conversations: CONVERSATIONS, signal, say, apps: APPS, routes: ROUTES },
    stack,
  );
  const { sidecar } = scene.urls;
  const trouble = new Trouble();
  const traffic = startTraffic({ baseUrl: sidecar, users: scene.users, ...TRAFFIC });
  const others = [
    new EchoSockets(sidecar, trouble),
    new Uploads(sidecar, trouble),
    new EventStreams(sidecar, trouble),
  ] as const;
  const stop = async () => {
    await Promise.race([
      Promise.all([traffic, ...others].map((part) => part.stop())),
      scene.broken,
    ]);
  };
  // Stopping twice does no harm; what broke the soak is told, not what breaks because of it.
  stack.defer(() => stop().catch(() => undefined));
  for (const phase of PHASES.slice(1, PHASES.indexOf("write-new"))) {
    say(`crossfade advance --to ${phase} --wait`);
    await command(scene, "advance", phase);
  }
  const memory = new MemoryWatch(scene.sidecarPid);
  stack.defer(() => memory.stop());
  const flips = await flipToAndFro(run, scene);
  memory.stop();
  say("is every acknowledged write in both schemas?");
  await stop();
  const writes = await checkWrites(scene, traffic);
  const { requests, failed, reads, failures, stales } = traffic.counters;
  const [websockets, uploads, events] = others;
  return {
    findings: {
      seconds: options.minutes * 60,
      requests: { requests, failed, checked: reads.checked, stale: reads.stale },
      writes: { acknowledged: writes.acknowledged, lost: writes.lost },
      websockets: websockets.findings,
      events: events.findings,
      uploads: uploads.findings,
      flips,
      memory: memory.samples,
      unsampled: memory.unsampled,
    },
    trouble: {
      traffic: { failures, stales },
      lost: writes.examples,
      others: trouble.incidents,
    },
  };
}

/** Between read-new and write-new, until the time is over. A flip that is undone is tried again soon. */
async function flipToAndFro(run: SoakRun, scene: Scene): Promise<FlipFindings> {
  const { minutes, flipEvery } = run.options;
  const receipts: Receipt[] = [];
  const undone: string[] = [];
  const end = performance.now() + minutes * 60_000;
  let due = performance.now();
  let next: Phase = "write-new";
  for (;;) {
    due += flipEvery * 1_000;
    const wait = Math.max(0, Math.min(due, end) - performance.now());
    await Promise.race([pause(wait, run.signal), scene.broken]);
    if (performance.now() >= end) return { receipts, undone };
    try {
      const receipt = await command(scene, next === "write-new" ? "advance" : "rollback", next);
      if (receipt === null) throw new StepFailed(`flip to ${next}`, "gave no receipt");
      receipts.push(receipt);
      run.say(
        `flip ${receipts.length} to ${next}: ${receipt.writes_held} writes held, longest ${receipt.hold_ms?.max.toFixed(1)} ms`,
      );
      next = next === "write-new" ? "read-new" : "write-new";
    } catch (error) {
      if (!(error instanceof StepFailed) || run.signal.aborted) throw error;
      undone.push(`${messageOf(error)} ${error.output}`.trim());
      run.say(`flip to ${next} did not come about: ${undone.at(-1)}`);
      due = performance.now() - flipEvery * 1_000 + RETRY_MS;
    }
  }
}

async function command(
  scene: Scene,
  verb: "advance" | "rollback",
  to: Phase,
): Promise<Receipt | null> {
  const running = scene.cli.run<{ receipt: Receipt | null }>(verb, "--to", to, "--wait");
  return (await Promise.race([running, scene.broken])).receipt;
}

/** After a clean comparison of every row, everything that was written before it has been mirrored. */
async function checkWrites(scene: Scene, traffic: Traffic): Promise<CheckResult> {
  await Promise.race([scene.cli.run("verify"), scene.broken]);
  const { oldDatabase: oldUrl, newDatabase: newUrl } = scene.urls;
  return checkBothSchemas({ oldUrl, newUrl, expected: traffic.expected() });
}
