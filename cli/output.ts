import { redact } from "../config/describe.ts";
import { CrossfadeError, EXIT, type ExitCode, messageOf, PlanError } from "../config/errors.ts";
import type { Result } from "./command.ts";

export interface Streams {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
}

/**
 * The one place that prints. With `--json`, stdout is exactly one document, for errors too; without it results go to
 * stdout and errors to stderr.
 */
export class Output {
  readonly json: boolean;
  readonly #streams: Streams;
  readonly #reportError: ((error: ErrorDocument) => void) | undefined;
  #printed = false;

  /** `reportError`: takes errors instead of the terminal, in a process that has a supervisor. */
  constructor(
    json: boolean,
    streams: Streams = process,
    reportError?: (error: ErrorDocument) => void,
  ) {
    this.json = json;
    this.#streams = streams;
    this.#reportError = reportError;
  }

  result(result: Result): void {
    if (!this.json) {
      if (result.text !== "") this.#streams.stdout.write(`${result.text}\n`);
      return;
    }
    if (this.#printed) return;
    this.#printed = true;
    this.#streams.stdout.write(`${JSON.stringify(result.json, plainNumbers, 2)}\n`);
  }

  /** For people only: progress and notes, on stderr, so that stdout stays the result. */
  note(text: string): void {
    if (!this.json) this.#streams.stderr.write(`${text}\n`);
  }

  /** Prints an error and returns the exit code it stands for. */
  error(error: unknown): ExitCode {
    const document = errorDocument(error);
    if (this.#reportError !== undefined) this.#reportError(document);
    else if (this.json && !this.#printed) this.result({ json: { error: document }, text: "" });
    else
      this.#streams.stderr.write(
        `crossfade: ${document.message}\n${document.hint === undefined ? "" : `  ${document.hint}\n`}`,
      );
    return error instanceof CrossfadeError ? error.exitCode : EXIT.failed;
  }

  /** Replaces the screen, for `--watch` on a terminal; elsewhere the screens follow each other. */
  screen(text: string): void {
    this.#streams.stdout.write(
      isTerminal(this.#streams.stdout) ? `\u001B[H\u001B[2J${text}\n` : `${text}\n\n`,
    );
  }
}

export interface ErrorDocument {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly issues?: readonly { readonly path: string; readonly message: string }[];
  /** The gates of a refusal. */
  readonly gates?: readonly unknown[];
}

/** What the world may see of an error: never a URL with its password. */
export function errorDocument(error: unknown): ErrorDocument {
  if (!(error instanceof CrossfadeError))
    return { code: "FAILED", message: redact(messageOf(error)) };
  return {
    code: error.code,
    message: redact(error.message),
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error instanceof PlanError ? { issues: error.issues } : {}),
    ...("gates" in error && Array.isArray(error.gates) ? { gates: error.gates as unknown[] } : {}),
  };
}

function plainNumbers(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

function isTerminal(stream: NodeJS.WritableStream): boolean {
  return "isTTY" in stream && stream.isTTY === true;
}
