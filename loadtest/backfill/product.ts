import { freePort } from "../../examples/support/free-port.ts";
import { openObjects } from "../../backfill/rebuilding.ts";
import { progress, type TableProgress } from "../../store/control/chunk-ledger.ts";
import {
  closeControlStore,
  type ControlStore,
  openControlStore,
} from "../../store/control/open.ts";
import { lastVerifyRun } from "../../store/control/verify-runs.ts";
import type { Recorder } from "../bench.ts";
import { crossfade, startRole, untilReady } from "../cli.ts";
import { rssMb } from "../memory.ts";
import { type BenchWorld, execute } from "../world.ts";
import { contest } from "./contest.ts";
import { MAPPING } from "./table.ts";

export interface ProductRun {
  readonly name: string;
  readonly rows: number;
  readonly workers: number;
  /** Compare everything afterwards, as a contest of its own. */
  readonly verify: boolean;
  /** Indexes are dropped during the copy, and what is timed ends when all are back. */
  readonly defer?: boolean;
  /** Both sides are schemas of the old database; the new one is this. */
  readonly inSchema?: string;
}

/** One migration with real processes up to a finished copy, and back to off. Records its speed and the memory of the backfill role. */
export async function copyWithProduct(
  world: BenchWorld,
  into: Recorder,
  run: ProductRun,
): Promise<void> {
  const newUrl = run.inSchema === undefined ? world.newUrl : world.oldUrl;
  const schema = run.inSchema ?? "public";
  const { plan, file } = world.writePlan({
    new: { database: newUrl, schema, app: "http://127.0.0.1:1" },
    operate: { listen: `127.0.0.1:${await freePort()}` },
    forward: { ledger: MAPPING },
    backfill: { workers: run.workers, defer: run.defer === true ? ["indexes"] : [] },
  });
  const roles = ["control", "mirror", "backfill"].map((role) => startRole(role, file));
  const store = openControlStore(plan, { role: "bench", instance: "a" });
  try {
    await untilReady(file);
    await contest(into, run.name, run.rows, async () => {
      await crossfade("advance", "--plan", file, "--to", "backfill", "--wait");
      const largest = await watchMemory(roles[2]?.pid ?? 0, async () => {
        const table = await untilCopied(() => progress(store, "forward"));
        const copied = performance.now();
        await untilRebuilt(store);
        return table.ms + performance.now() - copied;
      });
      into.add(`${run.name}: memory of the process`, "MB", largest.mb);
      return largest.result;
    });
    if (run.verify)
      await contest(into, `${run.name}: verify`, run.rows, async () => {
        await crossfade("verify", "--plan", file);
        // As the copy: from its first chunk to its last, without starting the command.
        const last = await lastVerifyRun(store, "forward");
        if (last?.state !== "clean" || last.finishedAt === undefined)
          throw new Error(`the comparison is ${last?.state ?? "missing"}`);
        return last.finishedAt.getTime() - last.startedAt.getTime();
      });
    const { rows } = await execute(newUrl, `select count(*)::int as n from ${schema}.ledger`);
    const [found] = rows as { n: number }[];
    if (found?.n !== run.rows) throw new Error(`${found?.n} of ${run.rows} rows arrived`);
  } finally {
    await Promise.all(roles.map((role) => role.stop()));
    await closeControlStore(store);
  }
  await crossfade("rollback", "--plan", file, "--to", "off");
  await crossfade("clean", "--plan", file, "--yes");
}

/** The largest resident memory of a process while `work` runs. */
async function watchMemory<T>(
  pid: number,
  work: () => Promise<T>,
): Promise<{ readonly mb: number; readonly result: T }> {
  let mb = 0;
  const look = async () => {
    mb = Math.max(mb, await rssMb(pid).catch(() => 0));
  };
  const timer = setInterval(() => void look(), 500);
  try {
    const result = await work();
    await look();
    return { mb, result };
  } finally {
    clearInterval(timer);
  }
}

async function untilRebuilt(store: ControlStore): Promise<void> {
  for (;;) {
    const left = await openObjects(store);
    const failed = left.find(({ error }) => error !== undefined);
    if (failed !== undefined) throw new Error(`${failed.name}: ${failed.error}`);
    if (left.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function untilCopied(read: () => Promise<TableProgress[]>): Promise<TableProgress> {
  for (;;) {
    const [table] = await read();
    if (table !== undefined && table.done === table.chunks) return table;
    if ((table?.failed ?? 0) > 0) throw new Error(`a chunk failed: ${table?.error}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
