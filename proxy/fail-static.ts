import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { messageOf } from "../config/errors.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { PHASES, SIDES } from "../config/words.ts";
import type { RoutingState } from "./ports.ts";

/** What is worth remembering: a hold is a matter of milliseconds, and a lag is measured anew. */
const REMEMBERED = z.object({
  plan: z.string(),
  phase: z.enum(PHASES),
  epoch: z.number().int(),
  authority: z.enum(SIDES),
  readsNew: z.number().min(0).max(1),
  salt: z.string(),
  maintenance: z.string().nullable().default(null),
});

/**
 * The last routing state, on this machine's disk: a sidecar that restarts while the control store is away goes on as before
 * (DESIGN §2.8). The guard still decides, so a remembered authority that is out of date costs refusals, never a stray write.
 */
export class FailStatic {
  readonly #plan: string;
  readonly #file: string;
  readonly #log: Log;
  #next: RoutingState | undefined;
  #writing: Promise<void> | undefined;

  constructor(plan: Pick<Plan, "name" | "proxy">, log: Log, place?: number) {
    this.#plan = plan.name;
    this.#file = failStaticFile(plan, place);
    this.#log = log;
  }

  async load(): Promise<RoutingState | undefined> {
    try {
      const { plan, ...state } = REMEMBERED.parse(JSON.parse(await readFile(this.#file, "utf8")));
      return plan === this.#plan ? { ...state, hold: null, lagging: false } : undefined;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
        this.#log.warn(
          { file: this.#file },
          `cannot use the remembered routing state: ${messageOf(error)}`,
        );
      }
      return undefined;
    }
  }

  /** Saves in the background; of several states in a row only the last matters. */
  save(state: RoutingState): void {
    this.#next = state;
    this.#writing ??= this.#write();
  }

  /** Resolves when all is on disk. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#next !== undefined) {
      const { hold: _, lagging: __, ...remembered } = this.#next;
      this.#next = undefined;
      const content = JSON.stringify({ plan: this.#plan, ...remembered });
      await this.#replace(content).catch((error: unknown) => {
        this.#log.warn(
          { file: this.#file },
          `cannot remember the routing state: ${messageOf(error)}`,
        );
      });
    }
    this.#writing = undefined;
  }

  /** By renaming, so that a crash leaves the old content or the new. The salt tells who is in the canary: for the owner only. */
  async #replace(content: string): Promise<void> {
    await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 });
    const draft = `${this.#file}.${process.pid}`;
    await writeFile(draft, content, { mode: 0o600 });
    await rename(draft, this.#file);
  }
}

/** One for each plan and address, and each process there. */
export function failStaticFile(plan: Pick<Plan, "name" | "proxy">, place?: number): string {
  const { host, port } = plan.proxy.listen;
  const at = place === undefined ? "" : `-${place}`;
  const name = `sidecar-${plan.name}-${host}-${port}${at}`.replaceAll(/[^\w.-]/g, "_");
  return join(plan.proxy.state, `${name}.json`);
}
