import { writeFileSync } from "node:fs";
import { InvalidArgumentError, Option } from "commander";
import { type Diagnosis, diagnose } from "../backfill/doctor/doctor.ts";
import { describeDatabase } from "../config/describe.ts";
import { CrossfadeError, EXIT, messageOf } from "../config/errors.ts";
import { type Side, SIDES } from "../config/words.ts";
import { renderDiagnosis } from "./check-view.ts";
import type { Command, Context, Result } from "./command.ts";
import { standingNow } from "./standing-now.ts";
import { fixScript } from "./fix-script.ts";
import { type Validated, validatePlan } from "./validate.ts";

/** Rows of each source table that are looked at unless --all-rows is given. */
const SAMPLE_ROWS = 100_000;
/** One statement reads at most a sample; over whole tables it may take its time. */
const STATEMENT_MS = { sample: 60_000, all: 3_600_000 };

interface Options {
  readonly fixScript?: string;
  readonly allRows?: boolean;
  readonly rows: number;
}

export const check: Command<Options> = {
  name: "check",
  summary: "the doctor: what would break, how many rows, an example, a fix; changes nothing",
  details: `Reads the plan, both catalogs and the data. Every mapping is run over real rows of its source, in the new database, into
temporary tables: rows whose expressions fail, that the target's constraints or types refuse, that fall on one key, break a
unique index or refer to nothing, or that a mapping rejects are counted, with an example. What comes back through the
reverse mappings is compared with the old rows: reverse(forward(row)) = row.

Of tables with more than 100,000 rows a sample is read (--rows, --all-rows), and the report says which. What cannot be
proven is called unknown, never ok. Estimates of rows, time, disk and WAL come from the rows looked at.

Changes nothing: its transactions are read-only but for temporary tables, which go with the session. One snapshot of each
database is held open while it runs, which keeps vacuum from cleaning up: with --all-rows on large tables, run it at a quiet time.

Exit code 1 if something would break (severity error); warnings and unknowns exit 0. A plan or database that does not hold
at all is 2, as everywhere.`,
  examples: [
    "crossfade check",
    "crossfade check --fix-script fixes.sql",
    "crossfade check --all-rows --plan shop.yaml --json",
  ],
  options: [
    new Option(
      "--fix-script <file>",
      "write a fix for every finding to this file; what changes rows is commented out",
    ),
    new Option("--rows <n>", "look at this many rows of each source table")
      .argParser(parseRows)
      .default(SAMPLE_ROWS)
      .conflicts("allRows"),
    new Option("--all-rows", "look at every row of every table"),
  ],
  logLevel: "warn",
  async run(context, { fixScript: file, allRows, rows }) {
    await refuseDone(context);
    const validated = await validatePlan(context.plan);
    const diagnosis = await diagnose(context.plan, validated.directions, {
      rows: allRows === true ? undefined : rows,
      signal: context.signal,
      statementTimeoutMs: allRows === true ? STATEMENT_MS.all : STATEMENT_MS.sample,
    });
    if (file !== undefined) writeScript(file, fixScript(context.plan, diagnosis.findings));
    return checkResult(context, validated, diagnosis, file);
  },
};

/** Else every table of old would be said to be missing. A control store that is away or another's is no matter here. */
async function refuseDone(context: Context): Promise<void> {
  const standing = await standingNow(context).catch(() => undefined);
  if (standing?.phase !== "done") return;
  throw new CrossfadeError(
    "REFUSED",
    "the migration is done: its old tables stand aside, so there is nothing to check",
    { hint: "`crossfade report` shows what was proven on the way." },
  );
}

function parseRows(text: string): number {
  const rows = Number(text);
  if (!Number.isSafeInteger(rows) || rows < 1)
    throw new InvalidArgumentError(
      `Found "${text}", expected a whole number of rows, such as 100000.`,
    );
  return rows;
}

function writeScript(file: string, script: string): void {
  try {
    writeFileSync(file, script);
  } catch (error) {
    throw new CrossfadeError("USAGE", `${file} cannot be written: ${messageOf(error)}`, {
      hint: "Name another file with --fix-script FILE.",
    });
  }
}

function checkResult(
  { plan }: Context,
  { directions, tables }: Validated,
  diagnosis: Diagnosis,
  file: string | undefined,
): Result {
  const side = (which: Side) => ({
    database: describeDatabase(plan[which].database),
    schema: plan[which].schema,
    tables: tables[which],
  });
  const mappings = directions.map(({ direction, drivers }) => ({
    direction,
    mappings: drivers.flatMap((driver) => driver.readers.flatMap((reader) => reader.mappings))
      .length,
  }));
  const ok = !diagnosis.findings.some(({ severity }) => severity === "error");
  const lines = [
    ...SIDES.map(
      (which) =>
        `  ${which}        ${side(which).database}, schema ${side(which).schema}, ${tables[which].length} tables`,
    ),
    ...mappings.map((entry) => `  ${entry.direction.padEnd(10)} ${entry.mappings} mappings`),
    ...(plan.reverse === undefined
      ? ["  reverse    none: after write-new there is no way back"]
      : []),
    ...plan.notActing.map((sentence) => `  note: ${sentence}`),
    ...renderDiagnosis(diagnosis),
    ...(file === undefined ? [] : ["", `Fixes are in ${file}: read it before running any of it.`]),
  ];
  return {
    json: {
      ok,
      plan: plan.name,
      old: side("old"),
      new: side("new"),
      mappings,
      not_acting: plan.notActing,
      findings: diagnosis.findings,
      coverage: diagnosis.coverage,
      round_trip: diagnosis.roundTrip ?? null,
      estimates: diagnosis.estimates,
    },
    text: [`${plan.name}: the plan holds${ok ? "" : ", but data would break it"}`, ...lines].join(
      "\n",
    ),
    ...(ok ? {} : { exit: EXIT.failed }),
  };
}
