import { rssMb } from "../memory.ts";
import type { MemorySample } from "./verdict.ts";

const EVERY_MS = 1_000;

/** Samples the resident memory of a process every second. */
export class MemoryWatch {
  readonly samples: MemorySample[] = [];
  /** Samples that could not be taken: there was no such process. */
  unsampled = 0;
  readonly #pid: number;
  readonly #started = performance.now();
  readonly #timer: NodeJS.Timeout;

  constructor(pid: number) {
    this.#pid = pid;
    this.#timer = setInterval(() => void this.#sample(), EVERY_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #sample(): Promise<void> {
    try {
      const mb = await rssMb(this.#pid);
      this.samples.push({ at: (performance.now() - this.#started) / 1_000, mb });
    } catch {
      this.unsampled += 1;
    }
  }
}
