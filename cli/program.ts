import { Command as Commander, CommanderError, Option } from "commander";
import { CrossfadeError, EXIT, type ExitCode } from "../config/errors.ts";
import { loadPlan } from "../config/load.ts";
import { onStanding, type Standing } from "../config/standing.ts";
import { packageVersion } from "../config/version.ts";
import type { AnyCommand, Command, CommandGroup, Result } from "./command.ts";
import { createLog, LOG_LEVELS } from "./log.ts";
import type { Output } from "./output.ts";
import { isSupervised, stopSignal } from "./signals.ts";
import type { ChildMessage } from "./supervisor.ts";

const EXIT_CODES =
  "Exit codes: 0 done, 1 failed, 2 usage or plan error, 3 refused by a gate or guard.";

/** Parses `argv`, runs the command it names and returns the exit code. Everything printed goes through `output`. */
export async function runProgram(
  entries: readonly (AnyCommand | CommandGroup)[],
  argv: readonly string[],
  output: Output,
): Promise<ExitCode> {
  let exit: ExitCode = EXIT.done;
  const run = async (command: AnyCommand, options: RawOptions, args: readonly string[]) => {
    exit = await runCommand(command, options, args, output);
  };
  try {
    await buildProgram(entries, run, output).parseAsync([...argv], { from: "user" });
    return exit;
  } catch (error) {
    if (!(error instanceof CommanderError)) return output.error(error);
    if (error.exitCode === 0) return EXIT.done;
    // Called without a command: commander has the help as the message.
    const message =
      error.code === "commander.help" ? "no command given" : error.message.replace(/^error: /, "");
    return output.error(
      new CrossfadeError("USAGE", message, {
        hint: "See crossfade --help, or crossfade COMMAND --help.",
      }),
    );
  }
}

interface RawOptions extends Readonly<Record<string, unknown>> {
  readonly plan: string;
  readonly logLevel?: string;
}

type Run = (command: AnyCommand, options: RawOptions, args: readonly string[]) => Promise<void>;

async function runCommand(
  command: AnyCommand,
  options: RawOptions,
  args: readonly string[],
  output: Output,
): Promise<ExitCode> {
  const result =
    "standalone" in command
      ? await command.run({ output }, options, args)
      : await runWithPlan(command, options, args, output);
  if (result === undefined) return EXIT.done;
  output.result(result);
  return result.exit ?? EXIT.done;
}

async function runWithPlan(
  command: Command,
  options: RawOptions,
  args: readonly string[],
  output: Output,
): Promise<Result | undefined> {
  const plan = loadPlan(options.plan);
  const logLevel = options.logLevel ?? command.logLevel;
  const log = await createLog({ level: logLevel, plan: plan.name, role: command.name });
  if (isSupervised()) onStanding(tellSupervisor);
  const signal = stopSignal(() => log.error({}, "stopped before everything was done"));
  return command.run({ plan, log, logLevel, output, signal }, options, args);
}

/** It has no connection of its own, and its lines say where the migration stands, too. */
function tellSupervisor(standing: Standing): void {
  const message: ChildMessage = { t: "standing", standing };
  if (process.connected) process.send?.(message);
}

function buildProgram(
  entries: readonly (AnyCommand | CommandGroup)[],
  run: Run,
  output: Output,
): Commander {
  const program = quiet(new Commander("crossfade"), output)
    .description(
      "Carries a live service from its old schema to its new one with no downtime, and back.",
    )
    .version(packageVersion(), "-v, --version")
    .helpCommand("help [command]", "shows the help of a command")
    .addHelpText(
      "after",
      `\nEvery command reads the plan (--plan, default crossfade.yaml) and takes --json.\n${EXIT_CODES}`,
    );
  for (const entry of entries)
    program.addCommand(
      "commands" in entry ? buildGroup(entry, run, output) : buildCommand(entry, run, output),
    );
  return program;
}

function buildGroup(group: CommandGroup, run: Run, output: Output): Commander {
  const built = quiet(new Commander(group.name), output)
    .summary(group.summary)
    .description(paragraphs(group.details))
    .helpCommand(false);
  for (const command of group.commands) built.addCommand(buildCommand(command, run, output));
  return built;
}

function buildCommand(command: AnyCommand, run: Run, output: Output): Commander {
  const built = quiet(new Commander(command.name), output)
    .summary(command.summary)
    .description(paragraphs(command.details))
    .addHelpText(
      "after",
      `\nExamples:\n${command.examples.map((example) => `  ${example}`).join("\n")}\n\n${EXIT_CODES}`,
    );
  for (const argument of command.arguments ?? []) built.addArgument(argument);
  for (const option of [...command.options, ...commonOptions(command)]) built.addOption(option);
  return built.action(async () =>
    run(command, built.opts<RawOptions>(), built.processedArgs as readonly string[]),
  );
}

function commonOptions(command: AnyCommand): Option[] {
  return [
    new Option("--plan <file>", "the plan file").default("crossfade.yaml"),
    new Option("--json", "print one JSON document on stdout and nothing else"),
    new Option(
      "--log-level <level>",
      `what to log on stderr (default: ${command.logLevel})`,
    ).choices(LOG_LEVELS),
  ];
}

/** Sources break lines at their own width; commander wraps at the terminal's. */
function paragraphs(text: string): string {
  return text.replaceAll(/(?<!\n)\n(?!\n)/g, " ");
}

/** commander throws instead of exiting, and leaves errors to `output`; help is a result like any other. */
function quiet(command: Commander, output: Output): Commander {
  return command.exitOverride().configureOutput({
    writeOut: (text) => {
      const said = text.trimEnd();
      const json = said === packageVersion() ? { version: said } : { help: text };
      output.result({ json, text: said });
    },
    writeErr: () => {},
  });
}
