import type { Phase } from "../../config/words.ts";
import { type LoadRequest, Target } from "./cannon.ts";
import { type Cell, cellName, MODES, type Workload } from "./report.ts";
import type { LoadProgress } from "./progress.ts";

export interface Strength {
  readonly rounds: number;
  readonly seconds: number;
  /** Requests per second of the fixed rate. */
  readonly rate: number;
  readonly connections: number;
}

export interface CellPlan {
  readonly phase: Phase | null;
  readonly workload: Workload;
  readonly direct: string;
  readonly through: string | undefined;
  readonly requests: (connection: number) => readonly LoadRequest[];
}

/** Shots that one workload takes: both modes, every round, every way. */
export function shotsOf(strength: Strength, ways: 1 | 2): number {
  return MODES.length * strength.rounds * ways;
}

/**
 * Measures one workload in both modes. Direct and through the sidecar alternate, and every second round begins with the
 * other one: what the machine does besides hits both alike.
 */
export async function measureWorkload(
  plan: CellPlan,
  strength: Strength,
  run: { readonly progress: LoadProgress; readonly signal: AbortSignal },
): Promise<Cell[]> {
  const { phase, workload, direct, through, requests } = plan;
  const { connections } = strength;
  const urls = through === undefined ? { direct } : { direct, sidecar: through };
  for (const url of Object.values(urls)) {
    // Thrown away: what is compiled and connected for the first time is not what is asked.
    const first = { url, connections, requests, seconds: 1, rate: undefined, signal: run.signal };
    await new Target().shoot(first);
  }
  const cells: Cell[] = [];
  for (const mode of MODES) {
    const ways = Object.entries(urls).map(([way, url]) => ({ way, url, target: new Target() }));
    for (let round = 0; round < strength.rounds; round += 1) {
      for (const { way, url, target } of round % 2 === 0 ? ways : ways.toReversed()) {
        run.progress.next(`${cellName({ phase, workload, mode })}: ${way}`);
        await target.shoot({
          url,
          connections,
          seconds: strength.seconds,
          rate: mode === "rate" ? strength.rate : undefined,
          requests,
          signal: run.signal,
        });
      }
    }
    const [straight, sidecar] = ways.map(({ target }) => target.figures());
    cells.push({ phase, workload, mode, direct: straight!, through: sidecar ?? null });
  }
  return cells;
}
