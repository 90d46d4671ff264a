import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A temporary folder for the plan and the logs. */
export interface Workspace {
  readonly folder: string;
  readonly logs: string;
  /** Removes everything, or everything but the logs. Does no harm twice. */
  remove(options?: { readonly keepLogs?: boolean }): void;
}

export function createWorkspace(): Workspace {
  const folder = mkdtempSync(join(tmpdir(), "crossfade-demo-"));
  const logs = join(folder, "logs");
  mkdirSync(logs);
  return {
    folder,
    logs,
    remove({ keepLogs = false } = {}) {
      if (!existsSync(folder)) return;
      for (const name of readdirSync(folder)) {
        if (!keepLogs || name !== "logs")
          rmSync(join(folder, name), { recursive: true, force: true });
      }
      if (!keepLogs) rmSync(folder, { recursive: true, force: true });
    },
  };
}
