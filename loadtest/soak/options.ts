import { Command } from "commander";
import { wholeNumber } from "../whole-number.ts";

export interface SoakOptions {
  readonly minutes: number;
  /** Seconds between two flips. */
  readonly flipEvery: number;
  readonly json: boolean;
}

/** Reads the command line. Throws a CommanderError whose exit code is 2 (0 after `--help`) and whose message is printed. */
export function soakOptions(argv: readonly string[]): SoakOptions {
  const command = new Command("npm run soak --")
    .description(
      `Starts the ColonyCraft example on throw-away databases, walks it to read-new under traffic, and then flips the authority to and
fro: requests whose clients read back what they wrote, WebSockets, uploads and event streams go on meanwhile (docs/loadtest.md).
Exit codes: 0 nothing failed, nothing was lost and the sidecar's memory is flat, 1 otherwise, 2 the command line does not hold.`,
    )
    .option("--minutes <n>", "how long to flip", wholeNumber(1, 10_080), 10)
    .option("--flip-every <seconds>", "time between two flips", wholeNumber(1, 3_600), 20)
    .option("--json", "one JSON document on stdout, everything else on stderr", false)
    .exitOverride((error) => {
      throw Object.assign(error, { exitCode: error.exitCode === 0 ? 0 : 2 });
    });
  command.parse(argv, { from: "user" });
  const options = command.opts<SoakOptions>();
  const { minutes, flipEvery } = options;
  if (minutes * 60 < flipEvery * 3)
    command.error(
      `error: found --flip-every ${flipEvery} in ${minutes} minutes, expected time for a flip there and back: --flip-every ${minutes * 20} or less`,
      { exitCode: 2 },
    );
  return options;
}
