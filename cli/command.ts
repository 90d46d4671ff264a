import type { Argument, Option } from "commander";
import type { ExitCode } from "../config/errors.ts";
import type { Plan } from "../config/plan-types.ts";
import type { CliLog } from "./log.ts";
import type { Output } from "./output.ts";

/** What a command found or did: `json` is the document of `--json`, `text` is for people. */
export interface Result {
  readonly json: unknown;
  readonly text: string;
  readonly exit?: ExitCode;
}

/** What every command gets. */
export interface Context {
  /** Loaded and validated before the command runs. */
  readonly plan: Plan;
  readonly log: CliLog;
  readonly logLevel: string;
  readonly output: Output;
  /** Aborted by the first SIGTERM or SIGINT, or when the supervisor of this process is gone. */
  readonly signal: AbortSignal;
}

/** One command of the CLI. Options and arguments are parsed by commander; `run` gets them as one object and a list. */
export interface Command<Options = object> {
  readonly name: string;
  /** One line, for the list of commands. */
  readonly summary: string;
  /** What a stranger needs to know, for `--help`. */
  readonly details: string;
  /** Command lines that work as they stand. */
  readonly examples: readonly string[];
  readonly options: readonly Option[];
  readonly arguments?: readonly Argument[];
  /** Long-running roles log more than commands that end by themselves. */
  readonly logLevel: "info" | "warn";
  /** Method syntax, so that commands with options of their own stand in one list. Undefined: it has printed already. */
  run(context: Context, options: Options, args: readonly string[]): Promise<Result | undefined>;
}

/** A command that works without a plan file, such as the one that drafts it. */
export interface StandaloneCommand<Options = object> extends Omit<Command, "run"> {
  readonly standalone: true;
  run(
    context: Pick<Context, "output">,
    options: Options,
    args: readonly string[],
  ): Promise<Result | undefined>;
}

export type AnyCommand = Command | StandaloneCommand;

/** Commands under one word, such as `quarantine list`. */
export interface CommandGroup {
  readonly name: string;
  readonly summary: string;
  readonly details: string;
  readonly commands: readonly AnyCommand[];
}
