import type { Phase } from "../../config/words.ts";
import type { Receipt } from "../../store/control/history.ts";
import { checkBothSchemas } from "../support/check-schemas.ts";
import type { Traffic } from "../support/traffic.ts";
import { pause } from "./interrupt.ts";
import type { Scene } from "./scene.ts";
import type { Screen } from "./screen.ts";
import type { Findings } from "./verdict.ts";

export interface WalkOptions {
  readonly scene: Scene;
  readonly traffic: Traffic;
  readonly screen: Screen;
  readonly findings: Findings;
  /** How long each phase is watched. */
  readonly watchMs: number;
  readonly signal: AbortSignal;
}

/** What `advance` and `rollback` print. */
interface WalkDocument {
  readonly phase: Phase;
  readonly receipt: Receipt | null;
}

/** What `verify` prints, as far as it is needed here. */
interface VerifyDocument {
  readonly run: {
    readonly state: string;
    readonly rows: number;
    readonly missing: number;
    readonly extra: number;
    readonly different: number;
  };
}

/** Takes the service through every phase: to write-new, back, forward again, to the end. */
export async function walk(options: WalkOptions): Promise<void> {
  const step = new Steps(options);
  await step.watch("off: the sidecar passes everything to the old app");
  await step.advance("dual-write", "every change of old is made in new as well");
  await step.advance("backfill", "history is copied underneath");
  await step.advance("verify", "every row is compared");
  await step.advance("shadow", "new is asked too, and its answers compared");
  await step.advance("canary", "new answers the reads of a few clients");
  await step.advance("read-new", "new answers all reads, old still takes the writes");
  await step.drill();
  await step.advance("write-new", "new takes the writes, old is kept whole");
  await step.compareRows();
  await step.rollback("read-new", "back to old, with every write that new has taken");
  await step.compareWrites();
  await step.advance("write-new", "and forward again");
  await step.compareWrites();
  await step.advance("done", "old is let go");
  options.findings.complete = true;
}

class Steps {
  readonly #options: WalkOptions;

  constructor(options: WalkOptions) {
    this.#options = options;
  }

  async watch(text?: string): Promise<void> {
    const { screen, watchMs, signal } = this.#options;
    if (text !== undefined) screen.step(text);
    await pause(watchMs, signal);
  }

  async advance(to: Phase, text: string): Promise<void> {
    const { screen } = this.#options;
    screen.step(`crossfade advance --to ${to} --wait   ${text}`);
    this.#keep(await this.#run<WalkDocument>("advance", "--to", to, "--wait"));
    await this.watch();
  }

  async rollback(to: Phase, text: string): Promise<void> {
    const { screen } = this.#options;
    screen.step(`crossfade rollback --to ${to} --wait   ${text}`);
    this.#keep(await this.#run<WalkDocument>("rollback", "--to", to, "--wait"));
    await this.watch();
  }

  async drill(): Promise<void> {
    this.#options.screen.step("crossfade drill   a flip up to the moment before its decision");
    this.#keep({ receipt: await this.#run<Receipt>("drill") });
    await this.watch();
  }

  /** Every row of both sides, while the traffic goes on. */
  async compareRows(): Promise<void> {
    const { screen, findings } = this.#options;
    screen.step("crossfade verify   every row of both sides");
    const { run } = await this.#run<VerifyDocument>("verify");
    const different = run.missing + run.extra + run.different;
    findings.rows.compared += run.rows;
    findings.rows.different += different;
    screen.line(`         ${run.state}: ${run.rows} rows compared, ${different} different`);
  }

  /** Every row and every acknowledged write in both schemas, while no request is under way. */
  async compareWrites(): Promise<void> {
    const { screen, findings, traffic, scene } = this.#options;
    screen.step("traffic paused: is every acknowledged write in both schemas?");
    await this.#race(traffic.pause());
    try {
      await this.compareRows();
      findings.writes = await checkBothSchemas({
        oldUrl: scene.urls.oldDatabase,
        newUrl: scene.urls.newDatabase,
        expected: traffic.expected(),
      });
      const { acknowledged, in_both, lost } = findings.writes;
      screen.line(`         ${acknowledged} acknowledged, ${in_both} in both, ${lost} lost`);
    } finally {
      traffic.resume();
    }
  }

  #keep({ receipt }: Pick<WalkDocument, "receipt">): void {
    if (receipt === null) return;
    this.#options.findings.flips.push(receipt);
    this.#options.screen.receipt(receipt);
  }

  async #run<Document>(...args: readonly string[]): Promise<Document> {
    return this.#race(this.#options.scene.cli.run<Document>(...args));
  }

  /** What a broken process leaves waiting must not wait for ever. */
  async #race<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#options.scene.broken]);
  }
}
