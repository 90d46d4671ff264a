import type { Recorder } from "../bench.ts";
import { cpuSeconds } from "./cpu.ts";

/**
 * Runs one contestant and records rows per second, and the CPU seconds per 100,000 rows of everything that takes part: both
 * servers and all commands are children of this process. `work` may say itself how long it took, where starting it is no part
 * of the contest.
 */
export async function contest(
  into: Recorder,
  name: string,
  rows: number,
  work: () => Promise<number | void>,
): Promise<void> {
  const before = cpuSeconds(process.pid);
  const started = performance.now();
  const ms = (await work()) ?? performance.now() - started;
  const after = cpuSeconds(process.pid);
  into.add(name, "rows/s", rows / (ms / 1_000));
  if (before !== undefined && after !== undefined)
    into.add(`${name}: CPU`, "s/100k rows", (after - before) * (100_000 / rows));
}
