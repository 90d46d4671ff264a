import { type ChildProcess, spawn } from "node:child_process";
import { resolve } from "node:path";
import { onTestFinished } from "vitest";

const CROSSFADE = resolve(import.meta.dirname, "../../bin/crossfade");

/** A command of the CLI as a process of its own; killed when the test ends. */
export class CliProcess {
  readonly child: ChildProcess;
  /** Resolves with the exit code, or the signal's name. */
  readonly ended: Promise<number | string>;
  #stdout = "";
  #stderr = "";

  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.child = spawn(CROSSFADE, args, {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child.stdout?.on("data", (data: Buffer) => (this.#stdout += data.toString()));
    this.child.stderr?.on("data", (data: Buffer) => (this.#stderr += data.toString()));
    this.ended = new Promise((done) =>
      this.child.on("close", (code, signal) => done(code ?? signal ?? "")),
    );
    onTestFinished(async () => {
      this.child.kill("SIGTERM");
      const timer = setTimeout(() => this.child.kill("SIGKILL"), 20_000);
      await this.ended;
      clearTimeout(timer);
    });
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** The one document on stdout. Throws if there is none, or more. */
  document<T>(): T {
    return JSON.parse(this.#stdout) as T;
  }
}

export interface CliResult<T> {
  readonly exit: number | string;
  readonly stdout: string;
  readonly stderr: string;
  readonly document: T;
}

/** Runs a command with `--json` to its end. */
export async function runCli<T = Record<string, unknown>>(
  plan: string,
  ...args: readonly string[]
): Promise<CliResult<T>> {
  const cli = new CliProcess([...args, "--plan", plan, "--json"]);
  const exit = await cli.ended;
  return { exit, stdout: cli.stdout, stderr: cli.stderr, document: cli.document<T>() };
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
