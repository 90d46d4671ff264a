import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { FlipFailpoint, FlipRequest } from "../../switchover/flip-types.ts";
import type { FlipConfig } from "./flip-deps.ts";

export interface FlipJob {
  readonly config: FlipConfig;
  /** Absent: a recovery. */
  readonly flip?: FlipRequest;
  readonly failpoint?: { readonly at: FlipFailpoint; readonly action: "kill" | "stop" };
}

/** A controller in a process of its own. */
export class FlipProcess {
  readonly #child: ChildProcess;
  readonly #exit: Promise<string | undefined>;
  #out = "";
  #err = "";

  constructor(job: FlipJob) {
    const { at, action } = job.failpoint ?? {};
    const script = new URL("flip-child.ts", import.meta.url).pathname;
    this.#child = spawn(
      process.execPath,
      [script, JSON.stringify({ config: job.config, flip: job.flip })],
      {
        env: {
          ...process.env,
          ...(at === undefined ? {} : { CROSSFADE_FAILPOINT: `${at}:${action}` }),
        },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    this.#child.stdout?.on("data", (data: Buffer) => (this.#out += data.toString()));
    this.#child.stderr?.on("data", (data: Buffer) => (this.#err += data.toString()));
    this.#exit = new Promise((resolve) =>
      this.#child.once("close", (_, signal) => resolve(signal ?? undefined)),
    );
  }

  /** Resolves with the signal that ended it, if one did. */
  async ended(): Promise<string | undefined> {
    return this.#exit;
  }

  /** What it printed, or its stderr when it printed nothing. */
  get output(): { result?: Record<string, unknown>; code?: string; message?: string } {
    return this.#out === "" ? { message: this.#err } : JSON.parse(this.#out);
  }

  /** Resolves once the process is stopped (state T), throws if it ended instead. */
  async stopped(): Promise<void> {
    for (;;) {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null)
        throw new Error(`it ended: ${this.#out} ${this.#err}`);
      const stat = readFileSync(`/proc/${this.#child.pid}/stat`, "utf8");
      if (stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3) === "T") return;
      await sleep(5);
    }
  }

  /** Lets a stopped process run on. */
  goOn(): void {
    this.#child.kill("SIGCONT");
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
