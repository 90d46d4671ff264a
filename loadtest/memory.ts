import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** The resident memory of a process, MB. Throws when there is no such process. */
export async function rssMb(pid: number): Promise<number> {
  const { stdout } = await promisify(execFile)("ps", ["-o", "rss=", "-p", String(pid)]);
  return Number(stdout.trim()) / 1_024;
}
