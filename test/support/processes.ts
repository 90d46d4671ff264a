import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const SCRIPT = fileURLToPath(new URL("./role-process.ts", import.meta.url));

/** A role that is started again after every kill, until stopped. */
export class KillableRole {
  readonly #role: string;
  readonly #plan: string;
  #child: ChildProcess;
  #stopped = false;

  constructor(role: "mirror" | "backfill", plan: string) {
    this.#role = role;
    this.#plan = plan;
    this.#child = this.#spawn();
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  #spawn(): ChildProcess {
    return spawn(process.execPath, [SCRIPT, this.#role, this.#plan], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
  }

  /** SIGKILL, and a new process at once. */
  async kill(): Promise<void> {
    const dead = exited(this.#child);
    this.#child.kill("SIGKILL");
    await dead;
    if (!this.#stopped) this.#child = this.#spawn();
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    const dead = exited(this.#child);
    this.#child.kill("SIGKILL");
    await dead;
  }
}

function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once("exit", () => resolve()));
}
