import { type ChildProcess, execFile, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { nodeFlagsOf } from "../cli/proxy-processes.ts";

const MAIN = fileURLToPath(new URL("../cli/main.ts", import.meta.url));

/** Runs one command of the CLI and returns its JSON document. Throws with its stderr if it fails. */
export async function crossfade(...args: readonly string[]): Promise<Record<string, unknown>> {
  const { stdout } = await promisify(execFile)(process.execPath, [MAIN, ...args, "--json"], {
    maxBuffer: 1 << 26,
  });
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** Starts a role as a process of its own. */
export function startRole(
  role: string,
  planFile: string,
): { stop(): Promise<void>; readonly pid: number } {
  const child: ChildProcess = spawn(
    process.execPath,
    [...nodeFlagsOf(role), MAIN, role, "--plan", planFile, "--log-level", "error"],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  return {
    pid: child.pid ?? 0,
    async stop() {
      child.kill("SIGTERM");
      await exited;
    },
  };
}

/** Resolves once the roles have made the control store and a controller answers. */
export async function untilReady(planFile: string): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await crossfade("status", "--plan", planFile);
      return;
    } catch (error) {
      if (attempt === 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
