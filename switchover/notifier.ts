import { messageOf } from "../config/errors.ts";
import { RunningState } from "../config/lifecycle.ts";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { readEventsAfter, readNotified, setNotified } from "../store/control/history.ts";
import type { TimelineEvent } from "../store/control/history.ts";
import type { ControlStore } from "../store/control/open.ts";
import { post } from "./hooks.ts";

/**
 * Tells the plan's webhooks what happened, at least once and in order: where it stands is kept in the control store, so
 * that a controller that takes over goes on from there. A webhook that stays away loses a message, never the others.
 */

const KINDS = [
  "phase",
  "flip",
  "drill",
  "rollback",
  "recovery",
  "trigger",
  "gap-healed",
  "shapes-taken",
  "quarantine-accept",
  "maintenance",
  "drop-old",
  "lose-unmirrored",
];
const LOOK_MS = 500;
const TRIES = 5;
const TIMEOUT_MS = 10_000;

export interface NotifierOptions {
  readonly plan: Plan;
  readonly store: ControlStore;
  readonly log: Log;
  /** Before the second try of a message; doubled for each further one. */
  readonly retryMs?: number;
}

export class Notifier {
  readonly #options: NotifierOptions;
  readonly #running: RunningState;
  readonly #done: Promise<void>;

  constructor(options: NotifierOptions) {
    this.#options = options;
    this.#running = new RunningState({ name: "notify", log: options.log });
    this.#done = options.plan.notify.length === 0 ? Promise.resolve() : this.#run();
  }

  async stop(): Promise<void> {
    this.#running.stop();
    await this.#done;
  }

  async #run(): Promise<void> {
    const { store } = this.#options;
    while (this.#running.shouldRun()) {
      let failure: unknown;
      try {
        for (const event of await readEventsAfter(store, await readNotified(store))) {
          if (!this.#running.shouldRun()) return;
          if (isTold(event)) await this.#tellAll(event);
          if (this.#running.shouldRun()) await setNotified(store, event.id);
        }
        this.#running.healthy();
      } catch (error) {
        failure = error;
      }
      if (failure === undefined) await this.#running.sleep(LOOK_MS);
      else await this.#running.backoff(failure);
    }
  }

  async #tellAll(event: TimelineEvent): Promise<void> {
    const { plan } = this.#options;
    const body = JSON.stringify({ text: textOf(plan.name, event), plan: plan.name, event });
    await Promise.all(plan.notify.map(async (url) => this.#tell(url, body)));
  }

  async #tell(url: string, body: string): Promise<void> {
    const { retryMs = 1_000, log } = this.#options;
    for (let attempt = 1; this.#running.shouldRun(); attempt += 1) {
      try {
        const limit = AbortSignal.timeout(TIMEOUT_MS);
        return await post(url, body, AbortSignal.any([limit, this.#running.signal]));
      } catch (error) {
        if (attempt >= TRIES) {
          log.error({}, `notify: ${messageOf(error)}; given up after ${TRIES} tries`);
          return;
        }
      }
      await this.#running.sleep(retryMs * 2 ** (attempt - 1));
    }
  }
}

/** A refusal is told to whoever asked; where Crossfade asked itself, to everybody: somebody has to look. */
function isTold({ kind, by }: TimelineEvent): boolean {
  return KINDS.includes(kind) || (kind === "refused" && by.startsWith("controller"));
}

/** One line for people: Slack and what is compatible with it show `text`. */
export function textOf(plan: string, { kind, by, phase, detail }: TimelineEvent): string {
  const said = (key: string) => (typeof detail[key] === "string" ? detail[key] : "no reason given");
  const what: Readonly<Record<string, string>> = {
    phase: `${said("from")} → ${said("to")}`,
    maintenance: `maintenance ${detail["on"] === true ? "on: writes are answered with 503" : "off"}`,
    refused: `going back by itself was refused in ${phase}, somebody has to look: ${said("why")}`,
    trigger: `going back by itself: ${said("why")}`,
  };
  const result = detail["ok"] === false ? `undone: ${said("why")}` : "done";
  return `Crossfade ${plan}: ${what[kind] ?? `${kind} in ${phase} ${result}`} (by ${by})`;
}
