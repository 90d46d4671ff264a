import { Option } from "commander";
import type { WalkResult } from "../switchover/walk.ts";
import type { Command } from "./command.ts";
import { lookAhead } from "./look-ahead.ts";
import { prepare } from "./prepare.ts";
import { request } from "./request.ts";
import { withProgress } from "./progress-bars.ts";
import { standingNow } from "./standing-now.ts";
import { sayingWhy } from "./waiting.ts";
import { DRY_RUN, toOption, WAIT, type WalkCommandOptions, walkResult } from "./walk-command.ts";

export const advance: Command<WalkCommandOptions> = {
  name: "advance",
  summary: "moves on to the next phase, through its gates",
  details: `Phases: off, dual-write, backfill, verify, shadow, canary, read-new, write-new, done. Each has gates: checks that must pass
before it is entered. A gate without data does not pass. If one says no, nothing is changed and the exit code is 3.

Without --to it goes one step (in canary: to the next share of clients). Into write-new it moves the authority for writes:
writes wait for some milliseconds, none fails, and the receipt says how long they waited.`,
  examples: [
    "crossfade advance",
    "crossfade advance --dry-run",
    "crossfade advance --to read-new --wait",
    "crossfade advance --to write-new --no-way-back   # a plan without `reverse:`",
  ],
  options: [
    toOption("go on, phase by phase, until this one is reached"),
    DRY_RUN,
    WAIT,
    new Option(
      "--no-way-back",
      "confirm that after write-new there is no way back, because the plan has no `reverse:`",
    ),
  ],
  logLevel: "warn",
  async run(context, options) {
    const dryRun = options.dryRun === true;
    if (dryRun && (await standingNow(context)) === undefined)
      return walkResult(await lookAhead(context, options.to), dryRun);
    // The first command of a migration may be this one.
    await prepare(context);
    const args = {
      to: options.to,
      // One step from here: typed twice, or by two people, it must not become two.
      ...(options.to === undefined ? { from: await standingNow(context) } : {}),
      wait: options.wait === true,
      dryRun,
      noWayBack: !options.wayBack,
    };
    const walk = () => request(context, "advance", args) as Promise<WalkResult>;
    const waited = () => withProgress(context, () => sayingWhy(context, walk));
    return walkResult(args.wait ? await waited() : await walk(), dryRun);
  },
};
