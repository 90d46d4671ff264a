import { Argument } from "commander";
import { CrossfadeError } from "../config/errors.ts";
import { parseDuration, parseFactor, parseSize, UnitError } from "../config/units.ts";
import { TUNABLE } from "../switchover/requests.ts";
import type { Command } from "./command.ts";
import { request } from "./request.ts";

type Key = (typeof TUNABLE)[number];

/** How each value is written: as the plan has it. */
const PARSE: Readonly<Record<Key, (value: string) => number>> = {
  workers: (value) => whole(value, 64),
  chunk: (value) => whole(value, 1_000_000),
  p99: parseFactor,
  replica_lag: parseDuration,
  active: (value) => whole(value, 100_000),
  wal: parseSize,
};

export const tune: Command = {
  name: "tune",
  summary: "changes the speed of the copy while it runs",
  details: `Every worker on every machine follows within a second, and no restart takes it back. The keys are those of \`backfill\` and
\`backfill.throttle\` in the plan; KEY=plan goes back to what the plan says.

workers: chunks that each backfill process copies at the same time. chunk: most rows that one sync takes (at least one planned
chunk). The other keys say when the copy slows down: p99=1.2x above this factor over the app's usual p99, replica_lag=5s above
this lag of a replica, active=50 above this many active sessions on the source, wal=50MB above this much WAL per second on the
target.`,
  examples: ["crossfade tune workers=1", "crossfade tune p99=1.5x", "crossfade tune p99=plan"],
  options: [],
  arguments: [new Argument("<key=value>", `one of ${TUNABLE.join(", ")}, and its value`)],
  logLevel: "warn",
  async run(context, _, [setting = ""]) {
    const args = parseSetting(setting);
    const result = (await request(context, "tune", args)) as {
      readonly throttle: Readonly<Record<string, number>>;
    };
    const set = Object.entries(result.throttle).map(([key, value]) => `${key}=${value}`);
    const note = args.value === null ? `${args.key}: as the plan says` : `${setting} from now on`;
    return {
      json: result,
      text: `${note}${set.length === 0 ? "" : `\nset over the plan: ${set.join(", ")} (ms, bytes, factors)`}`,
    };
  },
};

/** `workers=2` → its key and number. Throws USAGE. */
export function parseSetting(setting: string): {
  readonly key: Key;
  readonly value: number | null;
} {
  const at = setting.indexOf("=");
  const key = TUNABLE.find((known) => known === setting.slice(0, Math.max(0, at)).trim());
  if (key === undefined) {
    throw new CrossfadeError(
      "USAGE",
      `tune: found ${JSON.stringify(setting)}, expected KEY=VALUE with KEY one of ${TUNABLE.join(", ")}`,
      { hint: "For example `crossfade tune workers=1`." },
    );
  }
  const value = setting.slice(at + 1).trim();
  if (value === "plan") return { key, value: null };
  try {
    const number = PARSE[key](value);
    if (number > 0) return { key, value: number };
    throw new UnitError(value, "a value above 0");
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
    throw new CrossfadeError("USAGE", `tune: ${key}: ${error.message}`);
  }
}

function whole(value: string, max: number): number {
  const number = /^\d+$/.test(value) ? Number(value) : Number.NaN;
  if (number >= 1 && number <= max) return number;
  throw new UnitError(value, `a whole number from 1 to ${max}`);
}
