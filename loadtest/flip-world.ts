import { createWriteStream, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { expandEnvironment } from "../config/environment.ts";
import { SIDES } from "../config/words.ts";
import type { Side } from "../config/words.ts";
import { createSchema, seed, userIds } from "../examples/colonycraft/seed.ts";
import { Cli } from "../examples/demo/cli.ts";
import { RunningProcess } from "../examples/demo/processes.ts";
import type { Workspace } from "../examples/demo/workspace.ts";
import { startEmbeddedPostgres } from "../examples/support/embedded-postgres.ts";
import { freePort } from "../examples/support/free-port.ts";
import { execute } from "./world.ts";

export interface FlipWorldOptions {
  readonly workspace: Workspace;
  readonly sidecars: number;
  /** Mapped tables in all: the example's four, and as many more as it takes. */
  readonly tables: number;
}

export interface FlipWorld {
  readonly sidecars: readonly string[];
  readonly operate: string;
  readonly users: readonly string[];
  /** How long each write waited in the flip before, ms. */
  held(): Promise<readonly number[]>;
}

const USERS = 200;
const OWN_TABLES = 4;
const STOP_MS = 20_000;
const never = new AbortController().signal;

/**
 * The example service in the middle of its migration, behind several sidecars, every part a process of its own. Nothing goes
 * back by itself: on a loaded machine a slow answer would end the measurement.
 */
export async function openFlipWorld(
  options: FlipWorldOptions,
  stack: AsyncDisposableStack,
): Promise<FlipWorld> {
  const { workspace, tables } = options;
  const databases = await startDatabases(workspace, stack);
  const more = Array.from({ length: Math.max(0, tables - OWN_TABLES) }, (_, n) => `more_${n + 1}`);
  for (const side of SIDES) await createMore(databases[side], more);
  await seed({ databaseUrl: databases.old, conversations: 2_000, users: USERS });

  const start = (process: RunningProcess) => {
    stack.defer(() => process.stop(STOP_MS));
    return process;
  };
  const apps = { old: await address(), new: await address() };
  for (const side of SIDES)
    start(
      new RunningProcess({
        name: `${side}-app`,
        command: [
          process.execPath,
          join(import.meta.dirname, `../examples/colonycraft/${side}-app.ts`),
        ],
        env: { DATABASE_URL: databases[side], PORT: new URL(apps[side]).port },
        logs: workspace.logs,
      }),
    );
  const operate = await address();
  const sidecars = await Promise.all(Array.from({ length: options.sidecars }, address));
  for (const [n, sidecar] of sidecars.entries()) {
    const plan = await writePlan({ workspace, n, databases, apps, sidecar, operate, more });
    const cli = new Cli({ plan, logs: workspace.logs, signal: never });
    const process = start(n === 0 ? cli.up() : cli.start(`sidecar-${n + 1}`, "proxy"));
    await process.until(() => answers(sidecar), never);
  }
  return {
    sidecars,
    operate,
    users: userIds({ users: USERS }),
    // Where the plan names no control database, it is the old one.
    held: () => heldInLastFlip(databases.old),
  };
}

/** As the sidecars reported it: a receipt says only the most and two quantiles. */
async function heldInLastFlip(control: string): Promise<readonly number[]> {
  const { rows } = await execute(
    control,
    `with held as (select stats -> 'held' as report from crossfade.sidecar)
     select waited::float8 as ms from held, jsonb_array_elements(report -> 'durations_ms') waited
     where (report ->> 'attempt')::int = (select max((report ->> 'attempt')::int) from held)`,
  );
  return rows.map(({ ms }) => ms as number);
}

async function startDatabases(
  { logs }: Workspace,
  stack: AsyncDisposableStack,
): Promise<Record<Side, string>> {
  const urls: Partial<Record<Side, string>> = {};
  for (const side of SIDES) {
    const log = createWriteStream(join(logs, `${side}-postgres.log`));
    const server = await startEmbeddedPostgres({ onLog: (line) => log.write(line) });
    stack.defer(() => server.stop());
    urls[side] = await server.createDatabase("colonycraft");
    await createSchema(side, urls[side]);
  }
  return urls as Record<Side, string>;
}

/** Tables with a sequence each and some rows on the old side. */
async function createMore(databaseUrl: string, names: readonly string[]): Promise<void> {
  for (const name of names)
    await execute(
      databaseUrl,
      `create table ${name} (id bigserial primary key, body text not null)`,
    );
}

interface PlanOptions {
  readonly workspace: Workspace;
  readonly n: number;
  readonly databases: Readonly<Record<Side, string>>;
  readonly apps: Readonly<Record<Side, string>>;
  readonly sidecar: string;
  readonly operate: string;
  readonly more: readonly string[];
}

/** The example's own plan, once for each sidecar: they differ in where they listen and what they remember. */
async function writePlan(options: PlanOptions): Promise<string> {
  const { workspace, n, databases, apps, sidecar, operate, more } = options;
  const template = new URL("../examples/colonycraft/crossfade.yaml", import.meta.url);
  const text = expandEnvironment(
    await readFile(template, "utf8"),
    {
      OLD_DATABASE_URL: databases.old,
      NEW_DATABASE_URL: databases.new,
      OLD_APP_URL: apps.old,
      NEW_APP_URL: apps.new,
      PROXY_LISTEN: new URL(sidecar).host,
      OPERATE_LISTEN: new URL(operate).host,
      CROSSFADE_STATE: `.crossfade-${n + 1}`,
    },
    [],
  ) as string;
  const plan = parse(text) as { forward: object; reverse: object; gates: object };
  const same = Object.fromEntries(more.map((name) => [name, { from: name }]));
  const file = join(workspace.folder, `crossfade-${n + 1}.yaml`);
  const content = {
    ...plan,
    forward: { ...plan.forward, ...same },
    reverse: { ...plan.reverse, ...same },
    rollback_on: "off",
    canary: { steps: ["50%"], stay: "1s" },
    gates: { ...plan.gates, canary: { samples: 0 } },
  };
  writeFileSync(file, stringify(content), { mode: 0o600 });
  return file;
}

async function address(): Promise<string> {
  return `http://127.0.0.1:${await freePort()}`;
}

async function answers(url: string): Promise<boolean> {
  const response = await fetch(`${url}/healthz`).catch(() => undefined);
  await response?.body?.cancel();
  return response?.ok === true;
}
