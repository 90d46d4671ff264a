/** Exit codes of the command line (DESIGN.md §5). */
export const EXIT = { done: 0, failed: 1, usage: 2, refused: 3 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/**
 * Every error a user may see. `code` is stable and documented in docs/errors.md; `hint` says what to do next.
 * Classify by `code`, never by message text.
 */
export const ERROR_CODES = {
  PLAN_INVALID: {
    exit: EXIT.usage,
    meaning: "The plan file does not hold: every problem is listed with its path.",
  },
  USAGE: { exit: EXIT.usage, meaning: "The command line does not hold." },
  DATABASE_UNREACHABLE: {
    exit: EXIT.usage,
    meaning: "A database of the plan does not answer, or refuses the login.",
  },
  DATABASE_UNFIT: {
    exit: EXIT.usage,
    meaning:
      "A database answers, but a table, column, key, privilege or version the plan needs is not there.",
  },
  PORT_IN_USE: {
    exit: EXIT.usage,
    meaning: "Another process listens on the address the plan names.",
  },
  REFUSED: { exit: EXIT.refused, meaning: "A gate or a guard says no. Nothing was changed." },
  STALE: {
    exit: EXIT.failed,
    meaning:
      "Direction, epoch or attempt moved on while this process was working. Normal after a takeover; it starts again with the current state.",
  },
  SHAPE_CHANGED: {
    exit: EXIT.failed,
    meaning:
      "A mapped table was changed by DDL, or a trigger of ours on it was removed, while the migration runs. Nothing is mirrored, copied or compared until `crossfade resume`, which takes the tables as they are and copies and verifies them again.",
  },
  FLIP_UNDONE: {
    exit: EXIT.failed,
    meaning: "A flip gave up before its decision. Nothing moved; no write was refused.",
  },
  FLIP_UNKNOWN: {
    exit: EXIT.failed,
    meaning:
      "A flip was interrupted around its decision. Recovery decides and goes on; no side takes writes until it has.",
  },
  TIMEOUT: {
    exit: EXIT.failed,
    meaning: "Something did not happen in its time. Nothing is half done.",
  },
  FAILED: {
    exit: EXIT.failed,
    meaning: "The command did not do what it was asked; the message says why.",
  },
} as const;
export type ErrorCode = keyof typeof ERROR_CODES;

export class CrossfadeError extends Error {
  readonly code: ErrorCode;
  /** What the user can do about it: a sentence or a command. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "CrossfadeError";
    this.code = code;
    this.hint = options.hint;
  }

  get exitCode(): ExitCode {
    return ERROR_CODES[this.code].exit;
  }
}

/** One thing wrong with the plan. */
export interface PlanIssue {
  /** Dotted path in the plan file, e.g. `forward.tags.set.id`. */
  readonly path: string;
  readonly message: string;
}

/** All problems of a plan at once, so that one run shows them all. */
export class PlanError extends CrossfadeError {
  readonly issues: readonly PlanIssue[];

  constructor(file: string, issues: readonly PlanIssue[], hint?: string) {
    const lines = issues.map(
      (issue) => `  ${issue.path === "" ? "(plan)" : issue.path}: ${issue.message}`,
    );
    super(
      "PLAN_INVALID",
      `${file} does not hold:\n${lines.join("\n")}`,
      hint === undefined ? {} : { hint },
    );
    this.name = "PlanError";
    this.issues = issues;
  }
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === "") {
    return error.errors.map(messageOf).join("; ");
  }
  return error instanceof Error ? error.message : String(error);
}
