import { readdirSync, readFileSync } from "node:fs";

/** Linux counts CPU time in hundredths of a second, whatever the kernel's own clock does. */
const TICKS_PER_S = 100;

interface ProcessTimes {
  readonly parent: number;
  /** Its own, and that of children it has waited for. */
  readonly seconds: number;
}

/**
 * CPU seconds of a process and all below it, those that have ended included. What a shared machine does meanwhile does not
 * change them much, unlike rows per second. Undefined where there is no /proc.
 */
export function cpuSeconds(pid: number): number | undefined {
  const all = readTimes();
  if (all === undefined) return undefined;
  const below = (parent: number): number =>
    [...all].reduce(
      (sum, [id, times]) =>
        times.parent === parent && id !== parent ? sum + times.seconds + below(id) : sum,
      0,
    );
  return (all.get(pid)?.seconds ?? 0) + below(pid);
}

function readTimes(): Map<number, ProcessTimes> | undefined {
  const times = new Map<number, ProcessTimes>();
  let pids: number[];
  try {
    pids = readdirSync("/proc").map(Number).filter(Number.isInteger);
  } catch {
    return undefined;
  }
  for (const pid of pids) {
    try {
      // The name in brackets may hold blanks.
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
      const ticks = (i: number) => Number(fields[i] ?? 0) / TICKS_PER_S;
      const seconds = ticks(11) + ticks(12) + ticks(13) + ticks(14);
      times.set(pid, { parent: Number(fields[1]), seconds });
    } catch {
      // It ended meanwhile.
    }
  }
  return times.size === 0 ? undefined : times;
}
