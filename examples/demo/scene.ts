import { createWriteStream, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { expandEnvironment } from "../../config/environment.ts";
import type { Side } from "../../config/words.ts";
import { createSchema, seed, userIds } from "../colonycraft/seed.ts";
import { type EmbeddedServer, startEmbeddedPostgres } from "../support/embedded-postgres.ts";
import { freePort } from "../support/free-port.ts";
import { Cli } from "./cli.ts";
import { StepFailed } from "./failure.ts";
import { RunningProcess } from "./processes.ts";
import type { Workspace } from "./workspace.ts";

export interface SceneOptions {
  readonly workspace: Workspace;
  readonly conversations: number;
  readonly signal: AbortSignal;
  /** Tells what is being done. */
  readonly say: (text: string) => void;
  /** The modules that run as the old and the new app; the example's own by default. */
  readonly apps?: Readonly<Record<Side, string>>;
  /** The plan's `proxy.routes`; none by default. */
  readonly routes?: readonly object[];
}

/** Everything a service in the middle of its migration has, running. */
export interface Scene {
  readonly plan: string;
  readonly cli: Cli;
  readonly urls: {
    readonly oldDatabase: string;
    readonly newDatabase: string;
    readonly oldApp: string;
    readonly newApp: string;
    readonly sidecar: string;
    readonly operate: string;
  };
  /** Users of the service. */
  readonly users: readonly string[];
  /** The process that takes the service's traffic. */
  readonly sidecarPid: number;
  /** Rejects as soon as a process ends that should not. */
  readonly broken: Promise<never>;
}

const USERS = 200;
const APPS: Readonly<Record<Side, string>> = {
  old: join(import.meta.dirname, "../colonycraft/old-app.ts"),
  new: join(import.meta.dirname, "../colonycraft/new-app.ts"),
};
const SETTINGS = { log_min_duration_statement: "500" };
const STOP_MS = 20_000;
/** After Ctrl-C: the servers may be gone already, and nobody wants to wait for what cannot be finished. */
const HURRIED_STOP_MS = 5_000;

/** Starts servers, apps and Crossfade; `stack` ends them in reverse order, also when a later part does not start. */
export async function openScene(
  options: SceneOptions,
  stack: AsyncDisposableStack,
): Promise<Scene> {
  const { workspace, say, signal, conversations, apps: modules = APPS, routes } = options;
  say("starting two Postgres servers");
  const [oldServer, newServer] = await startServers(workspace, stack);
  const [oldDatabase, newDatabase] = await Promise.all([
    oldServer.createDatabase("colonycraft"),
    newServer.createDatabase("colonycraft"),
  ]);
  signal.throwIfAborted();
  say(`loading ${conversations.toLocaleString("en-US")} conversations of ${USERS} users`);
  await Promise.all([createSchema("old", oldDatabase), createSchema("new", newDatabase)]);
  await seed({ databaseUrl: oldDatabase, conversations, users: USERS });
  signal.throwIfAborted();

  say("starting the old app, the new app and crossfade up");
  const [oldApp, newApp, sidecar, operate] = await addresses();
  const urls = { oldDatabase, newDatabase, oldApp, newApp, sidecar, operate };
  const plan = await writePlan(workspace, urls, routes);
  const cli = new Cli({ plan, logs: workspace.logs, signal });
  const start = (process: RunningProcess) => {
    stack.defer(() => process.stop(signal.aborted ? HURRIED_STOP_MS : STOP_MS));
    return process;
  };
  const apps = [
    start(
      appProcess({
        side: "old",
        module: modules.old,
        url: oldApp,
        databaseUrl: oldDatabase,
        workspace,
      }),
    ),
    start(
      appProcess({
        side: "new",
        module: modules.new,
        url: newApp,
        databaseUrl: newDatabase,
        workspace,
      }),
    ),
  ];
  await Promise.all([answers(apps[0]!, oldApp, signal), answers(apps[1]!, newApp, signal)]);
  const up = start(cli.up());
  await up.until(() => up.stdout.endsWith("}\n"), signal);
  const broken = Promise.race([...apps, up].map((process) => process.mustRun()));
  // Whoever waits for something races it with this; nobody waiting is no reason to crash.
  broken.catch(() => undefined);
  const { roles } = JSON.parse(up.stdout) as UpDocument;
  const sidecarPid = roles.find(({ role }) => role === "proxy")?.pid;
  if (sidecarPid === undefined) throw new StepFailed("crossfade up", "runs no sidecar", up.stdout);
  return { plan, cli, urls, users: userIds({ users: USERS }), sidecarPid, broken };
}

/** What `up` prints, as far as it is needed here. */
interface UpDocument {
  readonly roles: readonly { readonly role: string; readonly pid: number }[];
}

async function startServers(
  { logs }: Workspace,
  stack: AsyncDisposableStack,
): Promise<[EmbeddedServer, EmbeddedServer]> {
  const start = async (name: string) => {
    const log = createWriteStream(join(logs, `${name}.log`));
    const server = await startEmbeddedPostgres({
      settings: SETTINGS,
      onLog: (line) => log.write(line),
    });
    stack.defer(() => server.stop());
    return server;
  };
  // Both settle before anything fails: a server that is still starting cannot be stopped.
  const [first, second] = await Promise.allSettled([start("old-postgres"), start("new-postgres")]);
  if (first.status === "rejected") throw first.reason;
  if (second.status === "rejected") throw second.reason;
  return [first.value, second.value];
}

async function addresses(): Promise<[string, string, string, string]> {
  const url = async () => `http://127.0.0.1:${await freePort()}`;
  return [await url(), await url(), await url(), await url()];
}

/** The example's own plan with this run's addresses in it, so that every command finds them without an environment. */
async function writePlan(
  workspace: Workspace,
  urls: Scene["urls"],
  routes: SceneOptions["routes"],
): Promise<string> {
  const template = new URL("../colonycraft/crossfade.yaml", import.meta.url);
  const environment = {
    OLD_DATABASE_URL: urls.oldDatabase,
    NEW_DATABASE_URL: urls.newDatabase,
    OLD_APP_URL: urls.oldApp,
    NEW_APP_URL: urls.newApp,
    PROXY_LISTEN: new URL(urls.sidecar).host,
    OPERATE_LISTEN: new URL(urls.operate).host,
  };
  const text = expandEnvironment(await readFile(template, "utf8"), environment, []) as string;
  const file = join(workspace.folder, "crossfade.yaml");
  writeFileSync(file, routes === undefined ? text : withRoutes(text, routes), { mode: 0o600 });
  return file;
}

function withRoutes(text: string, routes: readonly object[]): string {
  const plan = parse(text) as { proxy: object };
  return stringify({ ...plan, proxy: { ...plan.proxy, routes } });
}

function appProcess(app: {
  side: Side;
  module: string;
  url: string;
  databaseUrl: string;
  workspace: Workspace;
}): RunningProcess {
  return new RunningProcess({
    name: `${app.side}-app`,
    command: [process.execPath, app.module],
    env: { DATABASE_URL: app.databaseUrl, PORT: new URL(app.url).port },
    logs: app.workspace.logs,
  });
}

async function answers(app: RunningProcess, url: string, signal: AbortSignal): Promise<void> {
  const healthy = async () => {
    const response = await fetch(`${url}/healthz`).catch(() => undefined);
    await response?.body?.cancel();
    return response?.ok === true;
  };
  await app.until(healthy, signal);
}
