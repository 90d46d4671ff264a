import { Argument, Option } from "commander";
import Table from "cli-table3";
import { CrossfadeError } from "../config/errors.ts";
import { readMigration } from "../store/control/migration.ts";
import type { QuarantinedKey } from "../switchover/engine.ts";
import { activeDirection } from "../switchover/gate-facts.ts";
import { openRealEngine } from "../switchover/wiring.ts";
import type { Command, CommandGroup, Context } from "./command.ts";
import { withListener } from "./control-client.ts";
import { request } from "./request.ts";
import { PLAIN_TABLE } from "./status-view.ts";

const list: Command = {
  name: "list",
  summary: "lists the rows left behind, with the reason",
  details:
    "Rows that a mapping rejects or that the target refuses. `deferred` ones wait for another row and are tried again by themselves.",
  examples: ["crossfade quarantine list", "crossfade quarantine list --json"],
  options: [],
  logLevel: "warn",
  async run(context) {
    const keys = await readKeys(context);
    return { json: keys, text: keys.length === 0 ? "quarantine is empty" : keysTable(keys) };
  },
};

const show: Command = {
  name: "show",
  summary: "shows one of them",
  details:
    "Shows the mapping, the source table and key, the reason and the SQLSTATE of one quarantined row.",
  examples: ["crossfade quarantine show 17"],
  options: [],
  arguments: [new Argument("<id>", "its id in `quarantine list`")],
  logLevel: "warn",
  async run(context, _, [id = ""]) {
    const key = (await readKeys(context)).find((candidate) => candidate.id === id);
    if (key === undefined)
      throw new CrossfadeError("USAGE", `quarantine has no key ${id}`, {
        hint: "`crossfade quarantine list` shows them.",
      });
    const lines = Object.entries(key).map(
      ([name, value]) =>
        `${name.padEnd(14)}${Array.isArray(value) ? value.join(", ") : (value ?? "")}`,
    );
    return { json: key, text: lines.join("\n") };
  },
};

const retry: Command = {
  name: "retry",
  summary: "syncs them again, after their cause is gone",
  details:
    "Reads the source rows as they are now and syncs them again: all of them, or one. What is refused again stays, with the new reason.",
  examples: ["crossfade quarantine retry", "crossfade quarantine retry 17"],
  options: [],
  arguments: [new Argument("[id]", "only this one")],
  logLevel: "warn",
  async run(context, _, [id]) {
    const args = id === undefined ? {} : { ids: [id] };
    const result = (await request(context, "quarantine-retry", args)) as {
      tried: number;
      left: number;
    };
    return { json: result, text: `${result.tried} tried again, ${result.left} left in quarantine` };
  },
};

const accept: Command<{ readonly as: string; readonly reason: string }> = {
  name: "accept",
  summary: "accepts that one stays behind; a named person's word",
  details: `Records that a row may stay behind, by whom and why. write-new, rollback and done need an empty quarantine or this word for every row in it.`,
  examples: [
    'crossfade quarantine accept 17 --as "Ada" --reason "test account, deleted next week"',
  ],
  options: [
    new Option("--as <name>", "who accepts it").makeOptionMandatory(),
    new Option("--reason <text>", "why, for the audit log").makeOptionMandatory(),
  ],
  arguments: [new Argument("<id>", "its id in `quarantine list`")],
  logLevel: "warn",
  async run(context, { as, reason }, [id = ""]) {
    const result = await request(context, "quarantine-accept", { id, as, reason });
    return { json: result, text: `${as} accepts that ${id} stays behind` };
  },
};

export const quarantine: CommandGroup = {
  name: "quarantine",
  summary: "the rows left behind: list, show, retry, accept",
  details:
    "Rows that could not be carried over are kept here with the reason, and never dropped silently.",
  commands: [list, show, retry, accept],
};

async function readKeys(context: Context): Promise<readonly QuarantinedKey[]> {
  const { plan, log } = context;
  return withListener(context, async (store, listener) => {
    const migration = await readMigration(store);
    // Outside of these phases nothing is installed that could hold any.
    if (migration.phase === "off" || migration.phase === "done") return [];
    return openRealEngine({ plan, store, listener, log }).listQuarantine(
      activeDirection(migration),
    );
  });
}

function keysTable(keys: readonly QuarantinedKey[]): string {
  const table = new Table({ ...PLAIN_TABLE, head: ["id", "state", "mapping", "key", "reason"] });
  for (const key of keys)
    table.push([key.id, key.state, key.mapping, key.key.join(", "), key.reason]);
  return table.toString();
}
