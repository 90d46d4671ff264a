import { Option } from "commander";
import { EXIT } from "../config/errors.ts";
import type { VerifyExample, VerifyRun } from "../store/control/verify-runs.ts";
import type { Command, Result } from "./command.ts";
import { request } from "./request.ts";
import { count } from "./status-view.ts";

interface VerifyOptions {
  readonly table?: readonly string[];
  readonly repair?: boolean;
}

type Example = VerifyExample & { readonly table: string };

export const verify: Command<VerifyOptions> = {
  name: "verify",
  summary: "compares every mapped row of both sides now",
  details: `Computes every row that the mappings make and compares it with the row that is there: missing, extra, different. Differences
that writes in flight explain are compared again once the mirror has passed them. With --repair, what still differs is
synced again and compared again. Exits 1 if something differs.`,
  examples: [
    "crossfade verify",
    "crossfade verify --table users --table tags",
    "crossfade verify --repair --json",
  ],
  options: [
    new Option(
      "--table <table...>",
      "only these tables of the side that follows (a gate needs all of them)",
    ),
    new Option("--repair", "sync the rows that differ, then compare them again"),
  ],
  logLevel: "warn",
  async run(context, options) {
    const args = {
      repair: options.repair === true,
      ...(options.table === undefined ? {} : { tables: [...options.table] }),
    };
    const { run, examples } = (await request(context, "verify", args)) as {
      run: VerifyRun;
      examples: readonly Example[];
    };
    return verifyResult(run, examples);
  },
};

function verifyResult(run: VerifyRun, examples: readonly Example[]): Result {
  const lines = [
    `verify ${run.direction}: ${run.state}${run.error === undefined ? "" : `: ${run.error}`}`,
    `  ${count(run.rows)} rows compared: ${count(run.missing)} missing, ${count(run.extra)} extra, ${count(run.different)} different`,
    ...(run.inFlight > 0
      ? [`  ${count(run.inFlight)} differed only while their write was in flight`]
      : []),
    ...(run.repair ? [`  ${count(run.repaired)} repaired`] : []),
    ...examples.map(
      (example) =>
        `  ${example.kind.padEnd(9)} ${example.table} ${JSON.stringify(example.key)}${columnsOf(example)}`,
    ),
  ];
  return {
    json: { run, examples },
    text: lines.join("\n"),
    exit: run.state === "clean" ? EXIT.done : EXIT.failed,
  };
}

function columnsOf({ columns }: Example): string {
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
