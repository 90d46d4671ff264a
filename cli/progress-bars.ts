import { MultiBar, type SingleBar } from "cli-progress";
import { progress, type TableProgress } from "../store/control/chunk-ledger.ts";
import { closeControlStore, openControlStore } from "../store/control/open.ts";
import { readWorkers } from "../store/control/workers.ts";
import { etaSeconds } from "../switchover/status.ts";
import type { Context } from "./command.ts";
import { whileLooking } from "./looking.ts";
import { count } from "./status-view.ts";

const LOOK_MS = 500;
const FORMAT = "{table} {bar} {percentage} %  {rows} rows  {left}";

/** What a bar shows beside its length. */
export function barText(
  table: TableProgress,
  width: number,
): { readonly table: string; readonly rows: string; readonly left: string } {
  const eta = etaSeconds(table);
  const left =
    table.failed > 0
      ? `${table.failed} chunks failed`
      : table.done === table.chunks
        ? "done"
        : eta === null
          ? "time left unknown"
          : `${eta} s left`;
  return { table: table.table.padEnd(width), rows: count(table.rows), left };
}

/** Shows the copy as bars on the terminal while `work` goes on; nothing where there is no terminal, or with --json. */
export async function withProgress<T>(context: Context, work: () => Promise<T>): Promise<T> {
  if (!process.stderr.isTTY || context.output.json) return work();
  const store = openControlStore(context.plan, { role: "cli", instance: "progress" });
  const bars = new MultiBar({
    format: FORMAT,
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: false,
  });
  const shown = new Map<string, SingleBar>();
  const look = async () => {
    const tables = await progress(store, "forward");
    // What was copied long ago is no news.
    if (tables.every((table) => table.done === table.chunks) && shown.size === 0) return;
    const workers = await readWorkers(store, "backfill");
    const throttle = workers.find((worker) => worker.stats.throttle !== undefined)?.stats.throttle;
    const width = Math.max(...tables.map((table) => table.table.length));
    for (const table of tables) {
      const text = barText(table, width);
      const said = throttle !== undefined && text.left !== "done" ? `  ${throttle}` : "";
      const payload = { ...text, left: `${text.left}${said}` };
      const bar = shown.get(table.table);
      if (bar === undefined) shown.set(table.table, bars.create(table.chunks, table.done, payload));
      else bar.update(table.done, payload);
    }
  };
  try {
    return await whileLooking(
      context,
      { everyMs: LOOK_MS, look, unseen: "no progress to show" },
      work,
    );
  } finally {
    bars.stop();
    await closeControlStore(store);
  }
}
