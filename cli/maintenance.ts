import { Argument, Option } from "commander";
import { CrossfadeError } from "../config/errors.ts";
import type { Command } from "./command.ts";
import { prepare } from "./prepare.ts";
import { request } from "./request.ts";

interface MaintenanceOptions {
  readonly message?: string;
}

export const maintenance: Command<MaintenanceOptions> = {
  name: "maintenance",
  summary: "answers writes with 503 and a message until it is switched off; reads go on",
  details: `For work during which nothing may be written. A migration does not need it: a flip keeps writes waiting for some milliseconds and fails
none. Every sidecar obeys within a second, also after a restart; writes that were sent to the app before are still answered by it. The
answer is 503 with \`retry-after\` and the message: the plan's (\`maintenance.message\`), or the one given here.`,
  examples: [
    "crossfade maintenance on",
    'crossfade maintenance on --message "Back at 9:00 UTC"',
    "crossfade maintenance off",
  ],
  options: [new Option("--message <text>", "what writes are told instead of the plan's message")],
  arguments: [new Argument("<switch>", "on or off").choices(["on", "off"])],
  logLevel: "warn",
  async run(context, { message }, [word = ""]) {
    const on = word === "on";
    if (!on && message !== undefined)
      throw new CrossfadeError("USAGE", "--message goes with `maintenance on`");
    await prepare(context);
    const args = { on, ...(message === undefined ? {} : { message }) };
    const result = (await request(context, "maintenance", args)) as { maintenance: string | null };
    return {
      json: result,
      text:
        result.maintenance === null
          ? "maintenance is off: writes are sent to the app"
          : `maintenance is on, writes are answered with 503: ${result.maintenance}`,
    };
  },
};
