/** A step of the demo that did not do what it had to: which one, and what it printed last. */
export class StepFailed extends Error {
  readonly step: string;
  readonly output: string;

  constructor(step: string, why: string, output = "") {
    super(`${step}: ${why}`);
    this.name = "StepFailed";
    this.step = step;
    this.output = output;
  }
}

/** The demo was told to stop. */
export class Interrupted extends Error {
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`stopped by ${signal}`);
    this.name = "Interrupted";
    this.signal = signal;
  }
}
