import { type ChildProcess, spawn } from "node:child_process";
import { CrossfadeError, ERROR_CODES, type ErrorCode, EXIT, messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import { noteStanding, type Standing } from "../config/standing.ts";
import type { ErrorDocument } from "./output.ts";

/** What a child tells its supervisor: that it runs, where the migration stands, or why it ends. */
export type ChildMessage =
  | { readonly t: "ready"; readonly listen: string | undefined }
  | { readonly t: "standing"; readonly standing: Standing }
  | { readonly t: "failed"; readonly error: ErrorDocument };

export interface SupervisorOptions {
  readonly log: Log;
  /** What Node runs for a role: the script and its arguments. */
  readonly argsFor: (role: string) => readonly string[];
  readonly firstDelayMs?: number;
  readonly maxDelayMs?: number;
  /** A child that ran this long was healthy: the next crash starts with the shortest delay. */
  readonly healthyAfterMs?: number;
}

/** The delay before start number `crashes` (1-based) in a row. */
export function restartDelay(crashes: number, firstMs: number, maxMs: number): number {
  return Math.min(maxMs, firstMs * 2 ** Math.min(crashes - 1, 20));
}

/**
 * Keeps one child process per role running. A child that ends is started again, later and later while it keeps
 * crashing. Only a usage or plan error before its first `ready` is final: whoever starts it sees it at once, while
 * later the same code can mean a database that is away for a minute.
 */
export class Supervisor {
  readonly #options: Required<SupervisorOptions>;
  readonly #children = new Map<string, ChildProcess>();
  readonly #restarts = new Map<string, NodeJS.Timeout>();
  #stopping = false;

  constructor(options: SupervisorOptions) {
    this.#options = { firstDelayMs: 200, maxDelayMs: 5_000, healthyAfterMs: 30_000, ...options };
  }

  /** Starts a role and resolves with what it listens on once it is ready; rejects if its first start is refused. */
  async start(role: string): Promise<string | undefined> {
    if (this.#stopping) throw stoppedWhileStarting();
    return new Promise((resolve, reject) => this.#spawn(role, 0, { resolve, reject }));
  }

  /** Process ids by role, of the children that run now. */
  get pids(): Readonly<Record<string, number>> {
    return Object.fromEntries(
      [...this.#children].flatMap(([role, { pid }]) => (pid === undefined ? [] : [[role, pid]])),
    );
  }

  /** Asks every child to stop and resolves when all are gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const timer of this.#restarts.values()) clearTimeout(timer);
    await Promise.all(
      [...this.#children.values()].map(async (child) => {
        const gone = new Promise((resolve) => child.once("exit", resolve));
        child.kill("SIGTERM");
        await gone;
      }),
    );
  }

  /** Ends every child at once. */
  kill(): void {
    this.#stopping = true;
    for (const child of this.#children.values()) child.kill("SIGKILL");
  }

  #spawn(role: string, crashes: number, first?: FirstStart): void {
    const started = performance.now();
    // stdout belongs to the supervisor's own document; a child's goes to stderr with the logs.
    const child = spawn(process.execPath, [...process.execArgv, ...this.#options.argsFor(role)], {
      stdio: ["ignore", 2, 2, "ipc"],
    });
    this.#children.set(role, child);
    let failure: ErrorDocument | undefined;
    let pending = first;
    child.on("message", (message: ChildMessage) => {
      if (message.t === "failed") failure = message.error;
      if (message.t === "standing") noteStanding(message.standing);
      if (message.t === "ready") pending?.resolve(message.listen);
      if (message.t === "ready") pending = undefined;
    });
    let ended = false;
    const onEnd = (why: string, code: number | null) => {
      if (ended) return;
      ended = true;
      this.#children.delete(role);
      if (this.#stopping) return pending?.reject(stoppedWhileStarting());
      if (code === EXIT.usage && pending !== undefined)
        return pending.reject(asError(role, failure));
      const healthy = performance.now() - started >= this.#options.healthyAfterMs;
      this.#restart(role, healthy ? 1 : crashes + 1, failure?.message ?? why, pending);
    };
    child.on("exit", (code, signal) => onEnd(`ended with ${signal ?? `code ${code}`}`, code));
    // A process that could not be created has no exit.
    child.on("error", (error) => child.pid === undefined && onEnd(messageOf(error), null));
  }

  #restart(role: string, crashes: number, why: string, first?: FirstStart): void {
    const { log, firstDelayMs, maxDelayMs } = this.#options;
    const delay = restartDelay(crashes, firstDelayMs, maxDelayMs);
    log.warn({ child: role, crashes, delayMs: delay }, `${role}: ${why}; starting it again`);
    this.#restarts.set(
      role,
      setTimeout(() => this.#spawn(role, crashes, first), delay),
    );
  }
}

interface FirstStart {
  readonly resolve: (listen: string | undefined) => void;
  readonly reject: (error: unknown) => void;
}

function stoppedWhileStarting(): CrossfadeError {
  return new CrossfadeError("FAILED", "stopped while starting");
}

function asError(role: string, failure: ErrorDocument | undefined): CrossfadeError {
  const code =
    failure !== undefined && failure.code in ERROR_CODES ? (failure.code as ErrorCode) : "FAILED";
  const hint = failure?.hint;
  return new CrossfadeError(
    code,
    failure?.message ?? `${role} ended before it was ready`,
    hint === undefined ? {} : { hint },
  );
}
