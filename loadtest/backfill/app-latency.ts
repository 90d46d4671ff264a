import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { freePort } from "../../examples/support/free-port.ts";
import { progress } from "../../store/control/chunk-ledger.ts";
import {
  closeControlStore,
  type ControlStore,
  openControlStore,
} from "../../store/control/open.ts";
import type { Recorder } from "../bench.ts";
import { crossfade, startRole, untilReady } from "../cli.ts";
import { paced } from "../paced.ts";
import { type BenchWorld, execute } from "../world.ts";
import { MAPPING, newTable } from "./table.ts";

export interface AppLatency {
  readonly rows: number;
  readonly rounds: number;
  readonly seconds: number;
}

const APP = fileURLToPath(new URL("app.ts", import.meta.url));
/** Requests a second of each kind. */
const RATE = 100;
/** What is being copied ends, or a copy that was let go has found its pace. */
const SETTLE_MS = 10_000;

/**
 * The app's p99 through the sidecar with the throttle on: while the copy is paused and while it runs, in turn. Also how fast the
 * copy then is. Throws if the copy ended while it was measured: its numbers would be those of no copy.
 */
export async function measureApp(
  world: BenchWorld,
  into: Recorder,
  { rows, rounds, seconds }: AppLatency,
): Promise<void> {
  await execute(world.newUrl, newTable("ledger"));
  const app = await startApp(world.oldUrl, rows);
  const listen = `127.0.0.1:${await freePort()}`;
  const { plan, file } = world.writePlan({
    old: { database: world.oldUrl, app: app.url },
    operate: { listen: `127.0.0.1:${await freePort()}` },
    proxy: { listen },
    forward: { ledger: MAPPING },
    backfill: { throttle: { p99: "1.2x" } },
  });
  const roles = ["control", "mirror", "backfill", "proxy"].map((role) => startRole(role, file));
  const store = openControlStore(plan, { role: "bench", instance: "b" });
  try {
    await untilReady(file);
    await crossfade("advance", "--plan", file, "--to", "dual-write", "--wait");
    await crossfade("pause", "backfill", "--plan", file);
    await crossfade("advance", "--plan", file, "--to", "backfill", "--wait");
    for (let round = 0; round < rounds; round += 1) {
      await during(listen, SETTLE_MS);
      record(into, "without backfill", await during(listen, seconds * 1_000));
      await crossfade("resume", "backfill", "--plan", file);
      await during(listen, SETTLE_MS);
      const before = await copied(store);
      const started = performance.now();
      record(into, "during backfill", await during(listen, seconds * 1_000));
      const after = await copied(store);
      if (after.done) throw new Error("the copy ended while it was measured: take more rows");
      into.add(
        "app: rows copied meanwhile",
        "rows/s",
        (after.rows - before.rows) / ((performance.now() - started) / 1_000),
      );
      await crossfade("pause", "backfill", "--plan", file);
    }
  } finally {
    await Promise.all(roles.map((role) => role.stop()));
    await closeControlStore(store);
    await app.stop();
  }
  await crossfade("rollback", "--plan", file, "--to", "off");
  await crossfade("clean", "--plan", file, "--yes");
}

/** Reads and writes at even distances for a while, and the p99 of each. */
async function during(listen: string, ms: number): Promise<{ read: number; write: number }> {
  const pace = { rate: RATE, seconds: ms / 1_000 };
  const [read, write] = await Promise.all([
    paced(`http://${listen}`, { ...pace, method: "GET" }),
    paced(`http://${listen}`, { ...pace, method: "POST" }),
  ]);
  return { read: read.p99, write: write.p99 };
}

function record(into: Recorder, when: string, p99: { read: number; write: number }): void {
  into.add(`app: read p99 ${when}`, "ms", p99.read);
  into.add(`app: write p99 ${when}`, "ms", p99.write);
}

async function copied(store: ControlStore): Promise<{ rows: number; done: boolean }> {
  const [table] = await progress(store, "forward");
  return { rows: table?.rows ?? 0, done: table === undefined || table.done === table.chunks };
}

async function startApp(
  databaseUrl: string,
  rows: number,
): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const child = spawn(process.execPath, [APP, databaseUrl, String(rows)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [port] = (await once(createInterface(child.stdout), "line")) as [string];
  return {
    url: `http://127.0.0.1:${port}`,
    async stop() {
      child.kill("SIGTERM");
      if (child.exitCode === null) await once(child, "exit");
    },
  };
}
