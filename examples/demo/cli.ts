import { join, resolve } from "node:path";
import { StepFailed } from "./failure.ts";
import { RunningProcess } from "./processes.ts";

export const CROSSFADE = resolve(import.meta.dirname, "../../bin/crossfade");

export interface CliOptions {
  readonly plan: string;
  readonly logs: string;
  /** Ends a command that runs. */
  readonly signal: AbortSignal;
}

/** The error document of `--json`. */
interface ErrorDocument {
  readonly error?: { readonly code: string; readonly message: string; readonly hint?: string };
}

/** Runs commands of the CLI as a user would: one process each, one JSON document back. */
export class Cli {
  readonly #options: CliOptions;

  constructor(options: CliOptions) {
    this.#options = options;
  }

  /** Starts a command that runs until it is stopped. */
  start(name: string, ...args: readonly string[]): RunningProcess {
    const { plan, logs } = this.#options;
    return new RunningProcess({
      name,
      command: [CROSSFADE, ...args, "--plan", plan, "--json"],
      env: {},
      logs,
    });
  }

  /** `crossfade up`. It runs when its document is on stdout. */
  up(): RunningProcess {
    return this.start("up", "up");
  }

  /** Runs a command to its end; throws StepFailed unless it exits with 0 and one document. */
  async run<Document>(...args: readonly string[]): Promise<Document> {
    const { signal } = this.#options;
    const step = `crossfade ${args.join(" ")}`;
    signal.throwIfAborted();
    const child = this.start("commands", ...args);
    const kill = () => child.kill();
    signal.addEventListener("abort", kill);
    try {
      const { how, code } = await child.ended;
      signal.throwIfAborted();
      if (code !== 0) throw new StepFailed(step, `ended with ${how}`, describeError(child));
      return parseDocument<Document>(step, child);
    } finally {
      signal.removeEventListener("abort", kill);
    }
  }
}

function parseDocument<Document>(step: string, child: RunningProcess): Document {
  try {
    return JSON.parse(child.stdout) as Document;
  } catch {
    throw new StepFailed(step, "did not print one JSON document", child.tail);
  }
}

function describeError(child: RunningProcess): string {
  try {
    const { error } = JSON.parse(child.stdout) as ErrorDocument;
    if (error !== undefined) return [error.message, error.hint].filter(Boolean).join("\n");
  } catch {
    // No document: show what there is.
  }
  return child.tail;
}

/** Where the logs of a demo are, by process. */
export function logFiles(logs: string): string {
  return join(logs, "*.log");
}
