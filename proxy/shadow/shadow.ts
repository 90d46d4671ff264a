import type { JsonPath } from "../../config/json-path.ts";
import type { Log } from "../../config/lifecycle.ts";
import type { Phase, Side } from "../../config/words.ts";
import { phaseIndex } from "../../config/words.ts";
import type { ShadowReport } from "../../store/control/shadow-report.ts";
import type { AppTls } from "../app-tls.ts";
import { FenceLine } from "../fences.ts";
import type { Fence } from "../fences.ts";
import type { FenceWriter, RoutingSource, RoutingState } from "../ports.ts";
import { AnswerBuffer, compareAnswers } from "./answer.ts";
import type { Answer, AnswerHead, Asked } from "./answer.ts";
import { Asker } from "./ask.ts";
import type { Question } from "./ask.ts";
import type { CompareRules, Difference } from "./compare.ts";
import { exampleOf, routeOf } from "./example.ts";
import { NoiseBook, judge } from "./noise.ts";
import { ShadowTally } from "./tally.ts";
import type { Outcome } from "./tally.ts";

export interface ShadowOptions {
  readonly apps: Readonly<Record<Side, string>>;
  /** Towards apps that are https://. */
  readonly tls: Readonly<Record<Side, AppTls>>;
  /** Share of reads, 0–1. */
  readonly sample: number;
  readonly rules: CompareRules;
  readonly redact: readonly JsonPath[];
  readonly state: () => RoutingState;
  readonly source: RoutingSource;
  readonly writer: FenceWriter;
  readonly log: Log;
  readonly limits: ShadowLimits;
}

export interface ShadowLimits {
  /** Samples under way at once, from the head of the client's answer to the verdict. Bounds memory too. */
  readonly maxSamples: number;
  /** How long an app may take to answer. */
  readonly answerMs: number;
  /** How long a fence may take to pass. */
  readonly fenceMs: number;
}

export const DEFAULT_SHADOW_LIMITS: ShadowLimits = {
  maxSamples: 64,
  answerMs: 10_000,
  fenceMs: 5_000,
};

/** A read that was picked: it listens to the client's answer and is compared once the client has it. */
export interface ShadowSample {
  part(chunk: Buffer): void;
  /** The client's connection is done with this answer. */
  over(complete: boolean): void;
}

/** A read as both apps can be asked it. */
export interface ShadowRead {
  readonly method: string;
  readonly url: string;
  readonly body: Buffer | null;
  readonly head: AnswerHead;
  /** Header fields towards a side. */
  readonly headers: (side: Side) => string[];
}

/** Old is asked again for one in so many samples, to learn its noise. */
const NOISE_EVERY = 10;
const ATTEMPTS = 3;
/** They make an answer depend on what the client has already. */
const CONDITIONAL = /^(if-(none-match|match|modified-since|unmodified-since|range)|range)$/i;

/**
 * Shadow reads: a sample of what the old side answered is asked of new as well, and compared. Runs after the client has its
 * answer, over connections, limits and an error path of its own.
 *
 * A difference is no mismatch yet: a write may be under way. So it is looked at again in this order: ask old, let a fence pass
 * (new has all that old showed), ask new, ask old. Where old did not change in between, new must say what old says.
 */
export class Shadow {
  readonly #options: ShadowOptions;
  readonly #askers: Readonly<Record<Side, Asker>>;
  readonly #line: FenceLine;
  readonly #noise = new NoiseBook();
  #tally = new ShadowTally();
  #phase: Phase | undefined;
  /** Ended when what runs counts no more. */
  #round = new AbortController();
  #taken = 0;
  #asked = 0;
  readonly #running = new Set<Promise<void>>();
  #stopped = false;

  constructor(options: ShadowOptions) {
    this.#options = options;
    const { apps, tls, limits, writer, log, state } = options;
    this.#askers = {
      old: new Asker(apps.old, tls.old, limits.answerMs),
      new: new Asker(apps.new, tls.new, limits.answerMs),
    };
    this.#line = new FenceLine({
      writer,
      log,
      isOver: (fence) => fence.epoch < state().epoch || !this.#isOn(),
      lazyMs: 20,
    });
  }

  /** Whether to sample the next read that `side` answers. */
  wants(side: Side): boolean {
    if (side !== "old" || !this.#isOn() || Math.random() >= this.#options.sample) return false;
    if (this.#taken < this.#options.limits.maxSamples) return true;
    this.#tally.count("dropped");
    return false;
  }

  /** undefined: an answer that cannot be asked for again, such as a part or `not modified`. */
  take(read: ShadowRead): ShadowSample | undefined {
    const { status } = read.head;
    if (status >= 500 || status === 206 || status === 304) {
      this.#tally.count("skipped");
      return undefined;
    }
    this.#taken += 1;
    const buffer = new AnswerBuffer(read.head);
    const questions = { old: questionOf(read, "old"), new: questionOf(read, "new") };
    const round = this.#round.signal;
    return {
      part: (chunk) => buffer.add(chunk),
      over: (complete) => {
        if (complete && !round.aborted) this.#track(this.#compare(buffer, questions, round));
        else this.#taken -= 1;
      },
    };
  }

  /** A new phase: what was counted before `shadow` is entered says nothing of it. Returns whether counting began anew. */
  update({ phase }: RoutingState): boolean {
    const changed = this.#phase !== undefined && phase !== this.#phase;
    this.#phase = phase;
    if (!changed || phaseIndex(phase) > phaseIndex("shadow")) return false;
    this.#round.abort();
    this.#round = new AbortController();
    this.#tally = new ShadowTally();
    this.#noise.clear();
    return true;
  }

  report(): ShadowReport {
    return this.#tally.report(this.#noise.all());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#round.abort();
    await Promise.all(this.#running);
    await this.#line.stop();
    await Promise.all([this.#askers.old.destroy(), this.#askers.new.destroy()]);
  }

  /** Where old answers most reads and takes all writes. */
  #isOn(): boolean {
    const { phase, authority } = this.#options.state();
    return !this.#stopped && authority === "old" && (phase === "shadow" || phase === "canary");
  }

  #track(work: Promise<void>): void {
    const running = work
      // A comparison that fails is nobody's error: it is counted.
      .catch(() => this.#tally.count("skipped"))
      .finally(() => {
        this.#taken -= 1;
        this.#running.delete(running);
      });
    this.#running.add(running);
  }

  async #compare(buffer: AnswerBuffer, questions: Questions, round: AbortSignal): Promise<void> {
    const route = routeOf(questions.old.method, questions.old.url);
    const answer = await buffer.finish();
    const next = await this.#ask("new", questions, round);
    const found = answer && compareAnswers(answer, next, this.#options.rules);
    if (answer === undefined || found === undefined) {
      if (!round.aborted) this.#tally.count("skipped");
      return;
    }
    await this.#learn(route, answer, questions, round);
    const outcome = await this.#outcome(route, found, questions, round);
    if (!round.aborted) this.#tally.count(outcome);
  }

  async #outcome(
    route: string,
    found: readonly Difference[],
    questions: Questions,
    round: AbortSignal,
  ): Promise<Outcome> {
    const { kind } = judge(found, [], this.#noise.of(route));
    if (kind === "same" || kind === "noise") return kind;
    const verdict = await this.#again(route, questions, round);
    return verdict === "same" ? "in_flight" : verdict;
  }

  /** `unjudged` where no verdict can be had: it must not look as if only reads that agree were sampled. */
  async #again(route: string, questions: Questions, round: AbortSignal): Promise<Verdict> {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
      const old = await this.#ask("old", questions, round);
      if (typeof old === "string" || !(await this.#fencePassed(round))) return "unjudged";
      const next = await this.#ask("new", questions, round);
      const after = await this.#ask("old", questions, round);
      const { rules } = this.#options;
      const found = compareAnswers(old, next, rules);
      const between = after === "none" ? undefined : compareAnswers(old, after, rules);
      if (round.aborted || found === undefined || between === undefined) return "unjudged";
      // Old has its own trouble now.
      if (old.status >= 500) return "unjudged";
      const paths = between.map(({ path }) => path);
      this.#noise.observe(route, paths);
      const judgement = judge(found, paths, this.#noise.of(route));
      if (judgement.kind === "same" || judgement.kind === "noise") return judgement.kind;
      if (judgement.kind === "mismatch") {
        const statuses = { old: old.status, new: typeof next === "string" ? null : next.status };
        this.#keep(route, questions.old, statuses, judgement.differences);
        return "mismatch";
      }
    }
    return "noise";
  }

  #keep(
    route: string,
    request: Question,
    statuses: { readonly old: number; readonly new: number | null },
    found: readonly Difference[],
  ): void {
    const { redact, log } = this.#options;
    for (const difference of found) {
      const example = () => exampleOf(request, statuses, difference, redact);
      this.#tally.mismatch(route, difference.path, example);
    }
    const paths = found.map(({ path }) => path);
    log.debug({ route, paths, statuses }, "shadow: new answers differently");
  }

  /** Now and then old is asked twice just to learn its noise. */
  async #learn(
    route: string,
    answer: Answer,
    questions: Questions,
    round: AbortSignal,
  ): Promise<void> {
    if (this.#asked++ % NOISE_EVERY !== 0) return;
    const second = await this.#ask("old", questions, round);
    const found = compareAnswers(answer, second, this.#options.rules);
    if (found === undefined || second === "none" || round.aborted) return;
    this.#noise.observe(
      route,
      found.map(({ path }) => path),
    );
  }

  async #ask(side: Side, questions: Questions, round: AbortSignal): Promise<Asked> {
    return this.#askers[side].ask(questions[side], round);
  }

  /** Whether all that old showed before is in new too. */
  async #fencePassed(round: AbortSignal): Promise<boolean> {
    const { state, source, limits } = this.#options;
    if (round.aborted || !this.#isOn()) return false;
    const { authority, epoch } = state();
    const fence = this.#line.next(authority, epoch, false);
    const passed = () =>
      fence.standing({ epoch: state().epoch, passed: source.passed() }) === "passed";
    await untilPassed({ fence, passed, source, ms: limits.fenceMs, round });
    return passed() && !round.aborted;
  }
}

type Questions = Readonly<Record<Side, Question>>;
type Verdict = Exclude<Outcome, "in_flight" | "dropped">;

async function untilPassed(wait: {
  readonly fence: Fence;
  readonly passed: () => boolean;
  readonly source: RoutingSource;
  readonly ms: number;
  readonly round: AbortSignal;
}): Promise<void> {
  const { fence, passed, source, ms, round } = wait;
  const signal = AbortSignal.any([round, AbortSignal.timeout(ms)]);
  await new Promise<void>((resolve) => {
    const look = () => {
      if (!passed() && !signal.aborted) return;
      off();
      signal.removeEventListener("abort", look);
      resolve();
    };
    const off = source.onPassed(look);
    signal.addEventListener("abort", look);
    // It may have passed before this sidecar heard that it is written.
    void fence.written(ms).then(look);
    look();
  });
}

function questionOf({ method, url, body, headers }: ShadowRead, side: Side): Question {
  const raw = headers(side);
  const kept: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const [name = "", value = ""] = [raw[i], raw[i + 1]];
    if (!CONDITIONAL.test(name)) kept.push(name, value);
  }
  return { method, url, body, headers: kept };
}
