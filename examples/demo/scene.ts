import { createWriteStream, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expandEnvironment } from "../../config/environment.ts";
import { createSchema, seed, userIds } from "../colonycraft/seed.ts";
import {
  type EmbeddedServer,
  freePort,
  startEmbeddedPostgres,
} from "../support/embedded-postgres.ts";
import { Cli } from "./cli.ts";
import { RunningProcess } from "./processes.ts";
import type { Workspace } from "./workspace.ts";

export interface SceneOptions {
  readonly workspace: Workspace;
  readonly conversations: number;
  readonly signal: AbortSignal;
  /** Tells what is being done. */
  readonly say: (text: string) => void;
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
  /** Rejects as soon as a process ends that should not. */
  readonly broken: Promise<never>;
}

const USERS = 200;
const SETTINGS = { log_min_duration_statement: "500" };
const STOP_MS = 20_000;
/** After Ctrl-C: the servers may be gone already, and nobody wants to wait for what cannot be finished. */
const HURRIED_STOP_MS = 5_000;

/** Starts servers, apps and Crossfade; `stack` ends them in reverse order, also when a later part does not start. */
export async function openScene(
  options: SceneOptions,
  stack: AsyncDisposableStack,
): Promise<Scene> {
  const { workspace, say, signal, conversations } = options;
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
  const plan = await writePlan(workspace, urls);
  const cli = new Cli({ plan, logs: workspace.logs, signal });
  const start = (process: RunningProcess) => {
    stack.defer(() => process.stop(signal.aborted ? HURRIED_STOP_MS : STOP_MS));
    return process;
  };
  const apps = [
    start(appProcess("old-app", oldApp, oldDatabase, workspace)),
    start(appProcess("new-app", newApp, newDatabase, workspace)),
  ];
  await Promise.all([answers(apps[0]!, oldApp, signal), answers(apps[1]!, newApp, signal)]);
  const up = start(cli.up());
  await up.until(() => up.stdout.endsWith("}\n"), signal);
  const broken = Promise.race([...apps, up].map((process) => process.mustRun()));
  // Whoever waits for something races it with this; nobody waiting is no reason to crash.
  broken.catch(() => undefined);
  return { plan, cli, urls, users: userIds({ users: USERS }), broken };
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
async function writePlan(workspace: Workspace, urls: Scene["urls"]): Promise<string> {
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
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}

function appProcess(
  name: "old-app" | "new-app",
  url: string,
  databaseUrl: string,
  { logs }: Workspace,
): RunningProcess {
  const main = join(import.meta.dirname, `../colonycraft/${name}.ts`);
  return new RunningProcess({
    name,
    command: [process.execPath, main],
    env: { DATABASE_URL: databaseUrl, PORT: new URL(url).port },
    logs,
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
