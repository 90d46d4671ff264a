import { parseArgs } from "node:util";

export interface DemoOptions {
  /** The verdict as one JSON document on stdout, everything else on stderr. */
  readonly json: boolean;
  /** Leave everything running after the verdict, until Ctrl-C. */
  readonly keep: boolean;
  /** Start everything, and leave the walk to whoever looks. */
  readonly byHand: boolean;
  readonly help: boolean;
  readonly conversations: number;
  /** Requests per second that the traffic aims for. */
  readonly rate: number;
  /** How long each phase is watched before the next step. */
  readonly watchMs: number;
}

export const HELP = `Usage: npm run demo -- [--short] [--json] [--keep | --by-hand]

Starts two Postgres servers, the old and the new ColonyCraft app and Crossfade between them, keeps traffic running, and
walks every phase: to write-new, back again, forward again, to done. Ends with a verdict; exit code 0 only if no request
failed, no acknowledged write was lost, no row differs and no client missed what it wrote.

  --short   8,000 conversations instead of 100,000 and a shorter look at each phase: less than a minute
  --json    the verdict as one JSON document on stdout; progress goes to stderr
  --keep    leave everything running after the verdict and print the URLs; Ctrl-C ends it
  --by-hand start everything and its traffic, print the URLs, and leave the walk to you, in the console or with the CLI`;

const FULL = { conversations: 100_000, watchMs: 5_000, rate: 250 };
const SHORT = { conversations: 8_000, watchMs: 800, rate: 250 };

/** Throws with a message for people if the command line does not hold. */
export function demoOptions(argv: readonly string[]): DemoOptions {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      short: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      "by-hand": { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const { short, json, keep, help, "by-hand": byHand } = values;
  if (byHand && (json || keep))
    throw new Error("--by-hand ends without a verdict: leave out --json and --keep");
  return { json, keep, byHand, help, ...(short ? SHORT : FULL) };
}
