import { InvalidArgumentError, Option } from "commander";
import { CrossfadeError, EXIT } from "../config/errors.ts";
import { parseShare, UnitError } from "../config/units.ts";
import type { VerifyExample, VerifyRun } from "../store/control/verify-runs.ts";
import type { Command, Result } from "./command.ts";
import { request } from "./request.ts";
import { count } from "./status-view.ts";

interface VerifyOptions {
  readonly table?: readonly string[];
  readonly repair?: boolean;
  readonly where?: string;
  readonly sample?: number;
}

type Example = VerifyExample & { readonly table: string };

export const verify: Command<VerifyOptions> = {
  name: "verify",
  summary: "compares every mapped row of both sides now",
  details: `Computes every row that the mappings make and compares it with the row that is there: missing, extra, different. Differences
that writes in flight explain are compared again once the mirror has passed them. With --repair, what still differs is
synced again and compared again. The plan's \`checks\` and all foreign keys are a part of a comparison of everything; only such
a one counts for a gate, so --table, --where and --sample do not. Exits 1 if something differs.`,
  examples: [
    "crossfade verify",
    "crossfade verify --table users --table tags",
    "crossfade verify --repair --json",
    `crossfade verify --table users --where "created_at > '2024-01-01'"`,
    "crossfade verify --sample 5%",
  ],
  options: [
    new Option(
      "--table <table...>",
      "only these tables of the side that follows (a gate needs all of them)",
    ),
    new Option(
      "--where <sql>",
      "only rows of the side with the authority for which this is true; goes with --table",
    ),
    new Option("--sample <share>", "a random share of the key ranges, such as 5%").argParser(
      sampleShare,
    ),
    new Option("--repair", "sync the rows that differ, then compare them again"),
  ],
  logLevel: "warn",
  async run(context, options) {
    if (options.where !== undefined && options.table === undefined) {
      throw new CrossfadeError("USAGE", "--where names columns of a table, so it needs --table", {
        hint: 'For example `crossfade verify --table users --where "id < 1000"`.',
      });
    }
    const args = {
      repair: options.repair === true,
      ...(options.where === undefined ? {} : { where: options.where }),
      ...(options.sample === undefined ? {} : { sample: options.sample }),
      ...(options.table === undefined ? {} : { tables: [...options.table] }),
    };
    const { run, examples } = (await request(context, "verify", args)) as {
      run: VerifyRun;
      examples: readonly Example[];
    };
    return verifyResult(run, examples);
  },
};

function sampleShare(text: string): number {
  try {
    const share = parseShare(text);
    if (share > 0) return share;
  } catch (error) {
    if (!(error instanceof UnitError)) throw error;
  }
  throw new InvalidArgumentError(
    `Found ${JSON.stringify(text)}, expected a share above 0% such as 5%.`,
  );
}

function verifyResult(run: VerifyRun, examples: readonly Example[]): Result {
  const lines = [
    `verify ${run.direction}: ${run.state}${run.error === undefined ? "" : `: ${run.error}`}`,
    `  ${count(run.rows)} rows compared: ${count(run.missing)} missing, ${count(run.extra)} extra, ${count(run.different)} different`,
    ...(run.inFlight > 0
      ? [`  ${count(run.inFlight)} differed only while their write was in flight`]
      : []),
    ...(run.hot > 0
      ? [
          `  ${count(run.hot)} are written all the time: they differed at every look and moved along each time`,
        ]
      : []),
    ...(run.repair ? [`  ${count(run.repaired)} repaired`] : []),
    ...examples.map(
      (example) =>
        `  ${example.kind.padEnd(9)} ${example.table} ${JSON.stringify(example.key)}${columnsOf(example)}`,
    ),
    ...roundTripLines(run.roundTrip),
  ];
  return {
    json: { run, examples },
    text: lines.join("\n"),
    exit: run.state === "clean" ? EXIT.done : EXIT.failed,
  };
}

/** What going back would not keep as it is; "expected" is what old would give back. */
function roundTripLines(trip: VerifyRun["roundTrip"]): string[] {
  if (trip === undefined) return [];
  if (trip.error !== null) return [`  round trip not proved: ${trip.error}`];
  if (trip.failed === 0)
    return [`  round trip: all ${count(trip.compared)} rows of new would come back as they are`];
  return [
    `  round trip: ${count(trip.failed)} rows of new would not survive a rollback as they are`,
    ...trip.examples.map(
      (example) =>
        `    ${example.kind.padEnd(9)} ${example.table} ${JSON.stringify(example.key)}${columnsOf(example)}`,
    ),
  ];
}

function columnsOf({ columns }: Pick<VerifyExample, "columns">): string {
  if (columns === undefined) return "";
  const parts = Object.entries(columns).map(
    ([name, { expected, found }]) => `${name}: found ${short(found)}, expected ${short(expected)}`,
  );
  return parts.length === 0 ? "" : `  (${parts.join("; ")})`;
}

function short(value: string | null): string {
  if (value === null) return "null";
  return JSON.stringify(value.length > 40 ? `${value.slice(0, 37)}...` : value);
}
