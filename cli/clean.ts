import { Option } from "commander";
import { CrossfadeError } from "../config/errors.ts";
import { closeControlStore, type ControlStore, openControlStore } from "../store/control/open.ts";
import { isInstalled, uninstall } from "../store/control/schema.ts";
import { readSidecars } from "../store/control/sidecars.ts";
import { readWorkers, WORKER_ROLES } from "../store/control/workers.ts";
import { FRESH_MS } from "../switchover/gate-facts.ts";
import type { Command, Context, Result } from "./command.ts";
import { request } from "./request.ts";

interface CleanOptions {
  readonly yes?: boolean;
  readonly dropOld?: boolean;
}

export const clean: Command<CleanOptions> = {
  name: "clean",
  summary: "removes everything Crossfade installed, on both sides",
  details: `Removes triggers, logs and state from both databases, and the control store with its history. While old is the authority it goes
back to off first; while new is, it refuses: go back or finish. Only while no role runs. Tables of the app are not touched:
after done, the old tables stay aside until you drop them. What was dropped on new for a copy that did not end (\`backfill.defer\`) is built again.

With --drop-old it drops those tables and nothing else: only in done, and only after its stay (\`stay: { done: 7d }\`). Do that before you
remove the rest. What still depends on one of them is named, and then nothing is dropped.`,
  examples: ["crossfade clean --drop-old --yes", "crossfade clean --yes"],
  options: [
    new Option("--drop-old", "drop the old tables that stand aside since done"),
    new Option("--yes", "yes, remove it all, the history included (with --drop-old: those tables)"),
  ],
  logLevel: "warn",
  async run(context, { yes, dropOld }) {
    if (dropOld === true) return dropOldTables(context, yes === true);
    const store = openControlStore(context.plan, { role: "cli", instance: "clean" });
    try {
      if (!(await isInstalled(store)))
        return { json: { cleaned: false }, text: "nothing is installed" };
      await refuseWhileRunning(store);
      if (yes !== true) {
        throw new CrossfadeError(
          "REFUSED",
          "this removes everything on both sides, and the history of the migration",
          {
            hint: "Say so: crossfade clean --yes",
          },
        );
      }
      const { unproven } = (await request(context, "clean", {})) as { unproven: string[] };
      await uninstall(store);
      return cleaned(unproven);
    } finally {
      await closeControlStore(store);
    }
  },
};

/** Foreign keys that were dropped for a copy which did not end are back, but half-copied rows may not fulfil them. */
function cleaned(unproven: readonly string[]): Result {
  const lines = [
    "everything Crossfade installed is removed",
    ...(unproven.length === 0
      ? []
      : ["these foreign keys of new are back, but rows do not fulfil them yet; once they do:"]),
    ...unproven.map((sql) => `  ${sql};`),
  ];
  return { json: { cleaned: true, unproven }, text: lines.join("\n") };
}

/** Its own confirmation: there is no way back but a backup. */
async function dropOldTables(context: Context, yes: boolean): Promise<Result> {
  if (!yes) {
    const message = "this drops the old tables for good; the way back is a backup";
    throw new CrossfadeError("REFUSED", message, {
      hint: "Say so: crossfade clean --drop-old --yes",
    });
  }
  const result = (await request(context, "clean", { dropOld: true })) as { dropped: string[] };
  const { dropped } = result;
  return {
    json: result,
    text: dropped.length === 0 ? "no old tables stand aside" : `dropped: ${dropped.join(", ")}`,
  };
}

/** A role that runs would find its tables gone, or put them back. */
async function refuseWhileRunning(store: ControlStore): Promise<void> {
  const workers = await Promise.all(WORKER_ROLES.map(async (role) => readWorkers(store, role)));
  const running = [
    ...workers.flat().map(({ role, seenMs }) => ({ role, seenMs })),
    ...(await readSidecars(store)).map(({ seenMs }) => ({ role: "proxy", seenMs })),
  ]
    .filter(({ seenMs }) => seenMs < FRESH_MS)
    .map(({ role }) => role);
  if (running.length === 0) return;
  throw new CrossfadeError("REFUSED", `still running: ${[...new Set(running)].join(", ")}`, {
    hint: "Stop `crossfade up` (and roles on other machines) first.",
  });
}
