import { Option } from "commander";
import type { WalkResult } from "../switchover/walk.ts";
import type { Command } from "./command.ts";
import { request } from "./request.ts";
import { DRY_RUN, toOption, WAIT, type WalkCommandOptions, walkResult } from "./walk-command.ts";

interface RollbackOptions extends WalkCommandOptions {
  readonly acceptRoundTrip?: boolean;
}

export const rollback: Command<RollbackOptions> = {
  name: "rollback",
  summary: "goes back to an earlier phase without losing a write",
  details: `Goes back to the phase before, or at once to the one named with --to. From write-new the authority moves back to the old side
first; everything written meanwhile is there already, because the reverse mirror keeps it whole. From done there is no way
back but a backup. Back to off removes everything Crossfade installed on both sides.

In write-new, \`crossfade verify\` also proves that what was written on new comes back from old as it is. Where it does not,
\`crossfade status --json\` lists rows under verify.round_trip, and the way back needs --accept-round-trip.`,
  examples: [
    "crossfade rollback",
    "crossfade rollback --to dual-write",
    "crossfade rollback --to off --dry-run",
  ],
  options: [
    toOption("the phase to go back to (default: the one before)"),
    DRY_RUN,
    WAIT,
    new Option(
      "--accept-round-trip",
      "go back although some rows written on new do not survive it as they are",
    ),
  ],
  logLevel: "warn",
  async run(context, options) {
    const dryRun = options.dryRun === true;
    const args = {
      to: options.to,
      wait: options.wait === true,
      dryRun,
      acceptRoundTrip: options.acceptRoundTrip === true,
    };
    return walkResult((await request(context, "rollback", args)) as WalkResult, dryRun);
  },
};
