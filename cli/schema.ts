import { Argument, InvalidArgumentError, Option } from "commander";
import { describeDatabase } from "../config/describe.ts";
import { migrateSchema, schemaHistory, type SchemaStep } from "../store/postgres/own-migrations.ts";
import type { Command, CommandGroup, Context } from "./command.ts";

interface Options {
  readonly dir: string;
}

interface MigrateOptions extends Options {
  readonly dryRun?: true;
}

const dir = new Option(
  "--dir <folder>",
  "folder of the .sql files, seen from the plan's folder",
).default("migrations");
const dryRun = new Option("--dry-run", "print the SQL that would run; change nothing");

const FILES = `The files are numbered .sql files of the new schema, such as 0001-create-tags.sql, in a folder beside the plan. What stands
below a line "-- Up Migration" goes up, what stands below a line "-- Down Migration" takes it back. Each file runs in a transaction of its own and
is recorded in schema crossfade_migrations of the new database, which stays after crossfade clean.`;

/** A function, because each of the two commands parses its own count. */
function countArgument(description: string): Argument {
  return new Argument("[count]", description).argParser((text) => {
    const count = Number(text);
    if (!Number.isSafeInteger(count) || count < 1)
      throw new InvalidArgumentError("expected a whole number above 0.");
    return count;
  });
}

const up: Command<MigrateOptions> = {
  name: "up",
  summary: "runs the migrations that have not run yet",
  details: `Runs the migrations of the new schema that have not run yet, in order. ${FILES}`,
  examples: ["crossfade schema up --dry-run", "crossfade schema up"],
  options: [dir, dryRun],
  arguments: [countArgument("how many (default: all)")],
  logLevel: "warn",
  run: (context, options, [count]) => migrate(context, "up", options, count),
};

const down: Command<MigrateOptions> = {
  name: "down",
  summary: "takes the last migrations back",
  details: `Takes back the last migration, or the last COUNT of them. ${FILES}`,
  examples: ["crossfade schema down --dry-run", "crossfade schema down 2"],
  options: [dir, dryRun],
  arguments: [countArgument("how many (default: 1)")],
  logLevel: "warn",
  run: (context, options, [count]) => migrate(context, "down", options, count ?? 1),
};

const status: Command<Options> = {
  name: "status",
  summary: "lists the migrations and when they ran",
  details: `Lists the migrations of the new schema and when each ran. Changes nothing. ${FILES}`,
  examples: ["crossfade schema status"],
  options: [dir],
  logLevel: "warn",
  async run({ plan }, options) {
    const history = await schemaHistory(plan, options.dir);
    const pending = history.filter(({ at }) => at === undefined).length;
    return {
      json: { ok: true, pending, migrations: history },
      text: [
        ...history.map(({ name, at }) =>
          `${at === undefined ? "pending " : "ran     "} ${name}  ${at ?? ""}`.trimEnd(),
        ),
        `${history.length} migrations, ${pending} pending`,
      ].join("\n"),
    };
  },
};

export const schema: CommandGroup = {
  name: "schema",
  summary: "numbered SQL migrations of the new schema: up, down, status",
  details: `Brings the new schema where the new app needs it, before a crossing begins. ${FILES}`,
  commands: [up, down, status],
};

async function migrate(
  { plan }: Context,
  direction: "up" | "down",
  options: MigrateOptions,
  count: unknown,
) {
  const dry = options.dryRun === true;
  const steps = await migrateSchema(plan, {
    folder: options.dir,
    direction,
    dryRun: dry,
    count: typeof count === "number" ? count : Number.POSITIVE_INFINITY,
  });
  const where = `${describeDatabase(plan.new.database)}, schema ${plan.new.schema}`;
  return {
    json: { ok: true, direction, dry_run: dry, migrations: steps },
    text: [
      ...steps.map((step) => describe(step, dry)),
      `${where}: ${steps.length} ${dry ? "would run" : "done"}`,
    ].join("\n"),
  };
}

function describe({ name, sql }: SchemaStep, dry: boolean): string {
  return dry ? `-- ${name}\n${sql.trim()}` : `done ${name}`;
}
