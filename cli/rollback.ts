import { createInterface } from "node:readline/promises";
import { Option } from "commander";
import { CrossfadeError } from "../config/errors.ts";
import type { WalkResult } from "../switchover/walk.ts";
import type { Command, Context, Result } from "./command.ts";
import { request } from "./request.ts";
import { DRY_RUN, toOption, WAIT, type WalkCommandOptions, walkResult } from "./walk-command.ts";

interface RollbackOptions extends WalkCommandOptions {
  readonly acceptRoundTrip?: boolean;
  readonly loseUnmirrored?: boolean;
  readonly yes?: boolean;
}

export const rollback: Command<RollbackOptions> = {
  name: "rollback",
  summary: "goes back to an earlier phase without losing a write",
  details: `Goes back to the phase before, or at once to the one named with --to. From write-new the authority moves back to the old side
first; everything written meanwhile is there already, because the reverse mirror keeps it whole. From done there is no way
back but a backup. Back to off removes everything Crossfade installed on both sides.

In write-new, \`crossfade verify\` also proves that what was written on new comes back from old as it is. Where it does not,
\`crossfade status --json\` lists rows under verify.round_trip, and the way back needs --accept-round-trip.

With --lose-unmirrored, for when the new database is gone: old takes writes again as it is, and what it was not told is lost. It says first
what that is, and asks (--yes says so beforehand). If new comes back it takes no writes, and is made equal to old.`,
  examples: [
    "crossfade rollback",
    "crossfade rollback --to dual-write",
    "crossfade rollback --to off --dry-run",
    "crossfade rollback --lose-unmirrored",
  ],
  options: [
    toOption("the phase to go back to (default: the one before)"),
    DRY_RUN,
    WAIT,
    new Option(
      "--accept-round-trip",
      "go back although some rows written on new do not survive it as they are",
    ),
    new Option(
      "--lose-unmirrored",
      "the new database is gone for good: go on with old, without what it was not told (default: to shadow)",
    ),
    new Option("--yes", "yes, lose it: do not ask"),
  ],
  logLevel: "warn",
  async run(context, options) {
    const dryRun = options.dryRun === true;
    if (options.loseUnmirrored === true) return loseUnmirrored(context, options, dryRun);
    const args = {
      to: options.to,
      wait: options.wait === true,
      dryRun,
      acceptRoundTrip: options.acceptRoundTrip === true,
    };
    return walkResult((await request(context, "rollback", args)) as WalkResult, dryRun);
  },
};

/** Never without the word of whoever has read what is lost. */
async function loseUnmirrored(
  context: Context,
  { to, yes }: RollbackOptions,
  dryRun: boolean,
): Promise<Result> {
  const ask = async (really: boolean) =>
    (await request(context, "rollback", {
      to,
      loseUnmirrored: true,
      dryRun: !really,
    })) as WalkResult;
  const told = await ask(false);
  const why = told.lost?.why ?? "";
  if (dryRun) return shown(told, true);
  if (yes !== true) {
    context.output.note(why);
    if (!(await confirmed(context))) {
      throw new CrossfadeError("REFUSED", why, {
        hint: "Nothing was changed. Say so: crossfade rollback --lose-unmirrored --yes",
      });
    }
  }
  return shown(await ask(true), false);
}

function shown(walk: WalkResult, dryRun: boolean): Result {
  const { json, text } = walkResult(walk, dryRun);
  return { json, text: walk.lost === undefined ? text : `${walk.lost.why}\n${text}` };
}

/** Only somebody at a terminal can be asked. */
async function confirmed({ output, signal }: Context): Promise<boolean> {
  if (output.json || !process.stdin.isTTY) return false;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await lines.question("Lose it? Type yes: ", { signal })).trim() === "yes";
  } finally {
    lines.close();
  }
}
