import { describeDatabase } from "../config/describe.ts";
import { type Side, SIDES } from "../config/words.ts";
import type { Command, Context } from "./command.ts";
import { type Validated, validatePlan } from "./validate.ts";

export const check: Command = {
  name: "check",
  summary: "checks the plan against both databases; changes nothing",
  details: `Reads the plan and both databases and prints every problem: tables, columns and keys that are not there, mappings whose
SQL does not run, privileges that are missing. Changes nothing on either database.`,
  examples: ["crossfade check", "crossfade check --plan shop.yaml --json"],
  options: [],
  logLevel: "warn",
  async run(context) {
    return checkResult(context, await validatePlan(context.plan));
  },
};

function checkResult({ plan }: Context, { directions, tables }: Validated) {
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
  const lines = [
    `${plan.name}: the plan holds`,
    ...SIDES.map(
      (which) =>
        `  ${which}        ${side(which).database}, schema ${side(which).schema}, ${tables[which].length} tables`,
    ),
    ...mappings.map((entry) => `  ${entry.direction.padEnd(10)} ${entry.mappings} mappings`),
    ...(plan.reverse === undefined
      ? ["  reverse    none: after write-new there is no way back"]
      : []),
    ...plan.notActing.map((sentence) => `  note: ${sentence}`),
  ];
  return {
    json: {
      ok: true,
      plan: plan.name,
      old: side("old"),
      new: side("new"),
      mappings,
      not_acting: plan.notActing,
    },
    text: lines.join("\n"),
  };
}
