import { Option } from "commander";
import { CrossfadeError, EXIT, messageOf } from "../config/errors.ts";
import { readStatus, type Status } from "../switchover/status.ts";
import type { Command, Context } from "./command.ts";
import { withStatusInput } from "./status-input.ts";
import { statusScreen } from "./status-view.ts";
import { watchScreen } from "./watch-view.ts";
import type { ScreenSize } from "./watch-view.ts";

interface StatusOptions {
  readonly watch?: boolean;
  readonly json?: boolean;
}

const WATCH_MS = 1_000;

export const status: Command<StatusOptions> = {
  name: "status",
  summary: "shows where the migration stands",
  details: `Phase, authority, lag of the mirror, progress of the copy, gates of the next phase with value, limit and reason, quarantine,
sidecars, and the receipt of the last flip. Works in every phase, also when no role runs; while the control store is away it
says what both sides know, with the phase unknown, and exits 2. With --watch one screen (80 by
24 where there is no terminal) is renewed every second until Ctrl-C; what has no room is counted.`,
  examples: ["crossfade status", "crossfade status --watch", "crossfade status --json"],
  options: [new Option("--watch", "renew every second")],
  logLevel: "warn",
  async run(context, { watch }) {
    if (watch !== true) {
      const found = await withStatusInput(context, readStatus);
      // What is known of the sides is printed all the same, but where the migration stands is not.
      const exit = found.phase === "unknown" ? EXIT.usage : EXIT.done;
      return { json: found, text: statusScreen(found), exit };
    }
    if (context.output.json) {
      throw new CrossfadeError(
        "USAGE",
        "--watch prints again and again, --json prints one document",
        {
          hint: "Leave one of them out.",
        },
      );
    }
    await withStatusInput(context, (input) => watchStatus(context, () => readStatus(input)));
    return undefined;
  },
};

async function watchStatus(
  { signal, output }: Context,
  read: () => Promise<Status>,
): Promise<void> {
  while (!signal.aborted) {
    const terminal: Partial<ScreenSize> = process.stdout;
    const { columns = 80, rows = 24 } = terminal;
    const screen = await read().then(
      (found) => watchScreen(found, { columns, rows }, new Date()),
      messageOf,
    );
    output.screen(screen);
    await sleep(WATCH_MS, signal);
  }
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
