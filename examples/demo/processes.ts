import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StepFailed } from "./failure.ts";
import { pause } from "./interrupt.ts";

export interface ProcessOptions {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  /** Its output goes to `<logs>/<name>.log`. */
  readonly logs: string;
}

export interface Ended {
  /** `code 1` or the name of the signal. */
  readonly how: string;
  readonly code: number | null;
}

const KEPT_OUTPUT = 4_000;
const READY_MS = 30_000;
const LOOK_MS = 50;

const running = new Set<RunningProcess>();
// However the demo ends, none of its processes stays behind.
process.once("exit", () => running.forEach((child) => child.kill()));

/**
 * A child process in a process group of its own: a terminal's Ctrl-C reaches the demo alone, which then stops everything in
 * order, and what a child has started itself can be ended with it.
 */
export class RunningProcess {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<Ended>;
  #stdout = "";
  #tail = "";
  #stopping = false;

  constructor({ name, command, env, logs }: ProcessOptions) {
    this.name = name;
    const [file, ...args] = command;
    this.#child = spawn(file, args, {
      // Every command is a process that compiles the same files: with a cache they start in half the time.
      env: { ...process.env, NODE_COMPILE_CACHE: join(logs, "../compile-cache"), ...env },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    const log = createWriteStream(join(logs, `${name}.log`), { flags: "a" });
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
      log.write(text);
    });
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#tail = (this.#tail + text).slice(-KEPT_OUTPUT);
      log.write(text);
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once("error", (error) => resolve({ how: error.message, code: null }));
      this.#child.once("close", (code, signal) => resolve({ how: signal ?? `code ${code}`, code }));
    });
    running.add(this);
    void this.#ended.then(() => {
      running.delete(this);
      log.end();
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** All that it has written to stdout. */
  get stdout(): string {
    return this.#stdout;
  }

  /** The end of what it has written: to stdout if it failed with a document there, and to stderr. */
  get tail(): string {
    return `${this.#tail}${this.#stdout.slice(-KEPT_OUTPUT)}`.trim();
  }

  /** Resolves when it has ended and its output is read. */
  get ended(): Promise<Ended> {
    return this.#ended;
  }

  /** Rejects if it ends without having been asked to. */
  async mustRun(): Promise<never> {
    const { how } = await this.#ended;
    if (this.#stopping) return new Promise(() => {});
    throw new StepFailed(this.name, `ended unexpectedly with ${how}`, this.tail);
  }

  /** Resolves as soon as `ready` says so; rejects if the process ends before, or takes too long. */
  async until(ready: () => boolean | Promise<boolean>, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + READY_MS;
    const look = async () => {
      while (!(await ready())) {
        if (performance.now() > deadline)
          throw new StepFailed(this.name, `not ready after ${READY_MS / 1000} s`, this.tail);
        await pause(LOOK_MS, signal);
      }
    };
    await Promise.race([look(), this.mustRun()]);
  }

  /** SIGTERM, and SIGKILL for the whole group if that does not end it. */
  async stop(deadlineMs: number): Promise<void> {
    this.#stopping = true;
    this.#child.kill("SIGTERM");
    await Promise.race([this.#ended, sleep(deadlineMs, undefined, { ref: false })]);
    this.kill();
    await this.#ended;
  }

  /** Ends the whole group at once. */
  kill(): void {
    this.#stopping = true;
    if (this.pid === undefined) return;
    try {
      process.kill(-this.pid, "SIGKILL");
    } catch (error) {
      // ESRCH: nobody of the group is left, as it should be.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }
}
