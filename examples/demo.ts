import { messageOf } from "../config/errors.ts";
import { logFiles } from "./demo/cli.ts";
import { Interrupted, StepFailed } from "./demo/failure.ts";
import { interruptSignal, whenAborted } from "./demo/interrupt.ts";
import { LiveView } from "./demo/live.ts";
import { demoOptions, HELP, type DemoOptions } from "./demo/options.ts";
import { openScene, type Scene } from "./demo/scene.ts";
import { Screen, showLive } from "./demo/screen.ts";
import { type Findings, judge, newFindings, printVerdict } from "./demo/verdict.ts";
import { walk } from "./demo/walk.ts";
import { createWorkspace, type Workspace } from "./demo/workspace.ts";
import { startTraffic, type Traffic } from "./support/traffic.ts";

interface Demo {
  readonly options: DemoOptions;
  readonly screen: Screen;
  readonly workspace: Workspace;
  readonly findings: Findings;
  readonly signal: AbortSignal;
}

/** The whole demo; resolves with the exit code when nothing of it runs any more. */
async function main(argv: readonly string[]): Promise<number> {
  const options = demoOptions(argv);
  if (options.help) {
    process.stdout.write(`${HELP}\n`);
    return 0;
  }
  const workspace = createWorkspace();
  const signal = interruptSignal(() => process.exit(130));
  const screen = new Screen(options.json);
  const demo: Demo = { options, screen, workspace, findings: newFindings(), signal };
  let keepLogs = false;
  try {
    return await runDemo(demo);
  } catch (error) {
    // Ctrl-C reaches the servers too: what fails after it fails because of it.
    const reason: unknown = signal.aborted ? signal.reason : error;
    keepLogs = !(reason instanceof Interrupted);
    return tellFailure(demo, reason);
  } finally {
    workspace.remove({ keepLogs });
  }
}

async function runDemo(demo: Demo): Promise<number> {
  const { options, screen, workspace, findings, signal } = demo;
  await using stack = new AsyncDisposableStack();
  let scene: Scene;
  try {
    const say = (text: string) => screen.step(text);
    const { conversations } = options;
    scene = await openScene({ workspace, signal, say, conversations }, stack);
    if (!options.byHand) {
      screen.step(`watch it in the console: ${scene.urls.operate}`);
      await runTraffic(demo, scene, stack);
    }
  } finally {
    if (!options.byHand && (findings.complete || !signal.aborted)) printResult(demo);
  }
  if (options.byHand) return await leaveToUser(demo, scene, stack);
  if (options.keep) await keepRunning(demo, scene);
  return judge(findings).ok ? 0 : 1;
}

/** Traffic, and nobody who walks: that is up to whoever looks. */
async function leaveToUser(demo: Demo, scene: Scene, stack: AsyncDisposableStack): Promise<number> {
  const traffic = openTraffic(demo, scene);
  stack.defer(() => stopTraffic(traffic, scene));
  try {
    return await keepRunning(demo, scene);
  } finally {
    // Ctrl-C reaches servers and apps too: what fails from here on, fails because of it.
    demo.findings.traffic = traffic.counters;
  }
}

/** What a broken process leaves waiting must not wait for ever. */
async function stopTraffic(traffic: Traffic, { broken }: Scene): Promise<void> {
  await Promise.race([traffic.stop(), broken]).catch(() => undefined);
}

function openTraffic({ options }: Demo, scene: Scene): Traffic {
  return startTraffic({
    baseUrl: scene.urls.sidecar,
    users: scene.users,
    // The first step of canary is 10 % of clients: of so many, some are surely among them.
    clients: 100,
    ratePerSecond: options.rate,
  });
}

/** The walk under traffic. With `--keep` the traffic goes on afterwards. */
async function runTraffic(demo: Demo, scene: Scene, stack: AsyncDisposableStack): Promise<void> {
  const { options, screen, findings, signal } = demo;
  const traffic = openTraffic(demo, scene);
  const stop = () => stopTraffic(traffic, scene);
  if (options.keep) stack.defer(stop);
  await using view = new LiveView(scene.plan);
  const stopLive = showLive(screen, view, traffic);
  try {
    await walk({ scene, traffic, screen, findings, watchMs: options.watchMs, signal });
  } finally {
    await stopLive();
    if (!options.keep) await stop();
    findings.traffic = traffic.counters;
  }
}

function printResult({ options, screen, findings }: Demo): void {
  const verdict = judge(findings);
  printVerdict(screen, verdict, findings);
  if (options.json) process.stdout.write(`${JSON.stringify(verdict, null, 2)}\n`);
}

async function keepRunning(
  { screen, signal, options }: Demo,
  { urls, plan, broken }: Scene,
): Promise<never> {
  screen.line(`
Everything ${options.byHand ? "is" : "is still"} running, the traffic too; Ctrl-C ends it.
  console       ${urls.operate}
  sidecar       ${urls.sidecar}
  old app       ${urls.oldApp}
  new app       ${urls.newApp}
  old database  ${urls.oldDatabase}
  new database  ${urls.newDatabase}
  plan          ${plan}
  try           bin/crossfade status --plan ${plan}${options.byHand ? `\n                bin/crossfade advance --plan ${plan}` : ""}`);
  return Promise.race([whenAborted(signal), broken]);
}

function tellFailure({ screen, workspace, findings, options }: Demo, error: unknown): number {
  if (error instanceof Interrupted) {
    if (options.byHand && findings.traffic !== undefined) {
      const { requests, failed, reads } = findings.traffic;
      screen.line(
        `\n${requests} requests, failed ${failed}; ${reads.checked} answers checked, stale ${reads.stale}`,
      );
      return failed + reads.stale === 0 ? 0 : 1;
    }
    // After the verdict (`--keep`) being stopped is the regular end.
    if (findings.complete) return judge(findings).ok ? 0 : 1;
    screen.line(`\ndemo: ${error.message}; everything is ended`);
    return 130;
  }
  screen.line(`\ndemo: failed at ${messageOf(error)}`);
  if (error instanceof StepFailed && error.output !== "")
    screen.line(error.output.replaceAll(/^/gm, "  | "));
  screen.line(`  logs: ${logFiles(workspace.logs)}`);
  return 1;
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  process.stderr.write(`demo: ${messageOf(error)}\n`);
  process.exit(2);
}
