import { reached } from "./flip-sessions.ts";
import type { FlipDeps, FlipStep, ReceiptStep, RecoveryStep } from "./flip-types.ts";

/** Measures the steps of one attempt for its receipt, and gives tests a place to stop after each. */
export class StepRecorder {
  readonly #deps: FlipDeps;
  readonly #steps: ReceiptStep[] = [];

  constructor(deps: FlipDeps) {
    this.#deps = deps;
  }

  get steps(): readonly ReceiptStep[] {
    return this.#steps;
  }

  /** A failed step is not listed; the receipt's `why` tells of it. */
  async run<T>(name: FlipStep | RecoveryStep, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await work();
    const step = { name, ms: Math.round((performance.now() - start) * 100) / 100 };
    this.#steps.push(step);
    this.#deps.log.debug({ ...step }, `flip: ${name}`);
    this.#deps.onStep?.(step);
    await reached(this.#deps, name);
    return result;
  }
}
