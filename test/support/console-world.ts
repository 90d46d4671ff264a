import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import pg from "pg";
import { onTestFinished } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { runProxyRole } from "../../proxy/role.ts";
import type { ControlRole } from "../../switchover/role.ts";
import { startControlRole } from "../../switchover/role.ts";
import { silentLog } from "./control.ts";
import { itemsPlan, runWorkers } from "./controller-world.ts";
import { withClient } from "./databases.ts";
import { freePort } from "../../examples/support/free-port.ts";
import { mapping } from "./sync-world.ts";

/** A small migration with everything real: two apps on their schemas, traffic through a sidecar, every role. */
export interface ConsoleWorld {
  readonly plan: Plan;
  /** Of the console. */
  readonly url: string;
  /** The controller, which serves the console; it starts again at the same address. */
  readonly stopController: () => Promise<void>;
  readonly startController: () => Promise<void>;
}

interface Traffic {
  /** Writes that were answered with anything but 200. */
  readonly failedWrites: () => number;
  readonly writes: () => number;
}

export const TOKENS = {
  viewer: "look-only-1",
  operator: "do-things-1",
  approver: "say-yes-11",
} as const;

/** The row no mapping carries: its name is empty. */
export const REJECTED = 7;

/** Everything; the new app says something else about every fourth item. Reads of both are compared. */
export async function consoleWorld(): Promise<ConsoleWorld & Traffic> {
  const world = await idleConsoleWorld();
  runWorkers(world.plan);
  const traffic = startTraffic(await startProxy(world.plan));
  return { ...world, ...traffic };
}

/** Without traffic, mirror and backfill: what the console shows and asks of a controller alone. */
export async function idleConsoleWorld(overrides: Partial<Plan> = {}): Promise<ConsoleWorld> {
  const bare = await itemsPlan();
  await withClient(bare.old.database, (client) =>
    client.query("update items set name = '' where id = $1", [REJECTED]),
  );
  const plan: Plan = {
    ...bare,
    name: "shop-items",
    old: { ...bare.old, app: await startApp(bare.old.database, "name") },
    new: { ...bare.new, app: await startApp(bare.new.database, "title") },
    forward: {
      kind: "tables",
      mappings: [
        mapping("items", "items", {
          set: new Map([["title", "name"]]),
          reject: new Map([["the name is empty", "name = ''"]]),
        }),
      ],
    },
    proxy: { ...bare.proxy, listen: { host: "127.0.0.1", port: await freePort() } },
    shadow: { ...bare.shadow, sample: 1 },
    canary: { ...bare.canary, steps: [0.2, 0.5] },
    approvals: { done: 1 },
    gates: {
      ...bare.gates,
      shadow: { samples: 20, mismatch: 0.5 },
    },
    operate: {
      listen: { host: "127.0.0.1", port: await freePort() },
      tokens: Object.entries(TOKENS)
        .map(([role, token]) => `${role}:${token}`)
        .join(","),
    },
    ...overrides,
  };
  let control: ControlRole | undefined = await startControlRole({ plan, log: silentLog });
  const url = control.listen;
  const stopController = async () => {
    await control?.stop();
    control = undefined;
  };
  onTestFinished(stopController);
  const startController = async () => {
    control = await startControlRole({ plan, log: silentLog });
  };
  return { plan, url, stopController, startController };
}

async function startProxy(plan: Plan): Promise<string> {
  const abort = new AbortController();
  const ready = Promise.withResolvers<string>();
  const role = runProxyRole({
    plan,
    log: silentLog,
    signal: abort.signal,
    onReady: ready.resolve,
  });
  role.catch(ready.reject);
  onTestFinished(async () => {
    abort.abort();
    await role;
  });
  return ready.promise;
}

/** GET /items/ID and PUT /items/ID on a schema whose items have their name in `column`. */
async function startApp(database: string, column: "name" | "title"): Promise<string> {
  const pool = new pg.Pool({ connectionString: database, max: 4 });
  const answer = async (request: IncomingMessage): Promise<object> => {
    const id = Number(request.url?.split("/").at(-1));
    if (request.method === "PUT")
      await pool.query("update items set note = 'note ' || clock_timestamp() where id = $1", [id]);
    const { rows } = await pool.query<{ name: string }>(
      `select id, ${column} as name, note from items where id = $1`,
      [id],
    );
    const [item] = rows;
    const shouted = column === "title" && id % 4 === 0 ? { name: `${item?.name}!` } : {};
    return { ...item, ...shouted };
  };
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    answer(request).then(
      (document) =>
        response.setHeader("content-type", "application/json").end(JSON.stringify(document)),
      () => response.writeHead(500).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await pool.end();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function startTraffic(url: string): Traffic {
  let [writes, failed, stopped] = [0, 0, false];
  const loop = (async () => {
    for (let i = 0; !stopped; i++) {
      const id = (i % 100) + 10;
      const write = i % 5 === 0;
      const status = await fetch(`${url}/items/${id}`, { method: write ? "PUT" : "GET" }).then(
        async (response) => (await response.text(), response.status),
        () => 0,
      );
      if (write) writes += 1;
      if (write && status !== 200 && !stopped) failed += 1;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  onTestFinished(async () => {
    stopped = true;
    await loop;
  });
  return { writes: () => writes, failedWrites: () => failed };
}
