import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Plan } from "../../config/plan-types.ts";
import { freePort } from "../../examples/support/free-port.ts";
import { runProxyRole } from "../../proxy/role.ts";
import { readMigration, setMigration } from "../../store/control/migration.ts";
import type { MigrationChange } from "../../store/control/migration.ts";
import type { ControlStore } from "../../store/control/open.ts";
import { install } from "../../store/control/schema.ts";
import { installFeed } from "../../store/postgres/install-feed.ts";
import { installSide } from "../../store/postgres/install-side.ts";
import { openTestStore } from "./control.ts";
import { createDatabasePair, withClient } from "./databases.ts";
import { makePlan, quietLog, startApp } from "./sidecar.ts";

export interface ProxyWorld {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly change: (change: MigrationChange) => Promise<void>;
}

/** Both sides and the control store installed, no tables mapped, nothing running. */
export async function proxyWorld(): Promise<ProxyWorld> {
  const { oldUrl, newUrl } = await createDatabasePair();
  const folder = await mkdtemp(join(tmpdir(), "crossfade-proxy-"));
  const bare = makePlan(folder, {
    old: await startApp("old"),
    new: await startApp("new"),
    lagMs: 60_000,
  });
  const plan: Plan = {
    ...bare,
    old: { ...bare.old, database: oldUrl },
    new: { ...bare.new, database: newUrl },
    control: { database: oldUrl, schema: "crossfade" },
    proxy: { ...bare.proxy, listen: { host: "127.0.0.1", port: await freePort() } },
  };
  const store = openTestStore(oldUrl, { plan: plan.name });
  await install(store);
  for (const side of ["old", "new"] as const) {
    await withClient(plan[side].database, async (client) => {
      await installSide(client, { side, plan: plan.name });
      await installFeed(client, side, []);
    });
  }
  const change = async (wanted: MigrationChange) => {
    await setMigration(store, await readMigration(store), wanted);
  };
  return { plan, store, change };
}

/** Runs the role until the returned function is called. */
export async function runRole(plan: Plan): Promise<{ url: string; stop: () => Promise<void> }> {
  const abort = new AbortController();
  const ready = Promise.withResolvers<string>();
  const role = runProxyRole({ plan, log: quietLog, signal: abort.signal, onReady: ready.resolve });
  role.catch(ready.reject);
  const stop = async () => {
    abort.abort();
    await role;
  };
  const url = await ready.promise;
  onTestFinished(stop);
  return { url, stop };
}
