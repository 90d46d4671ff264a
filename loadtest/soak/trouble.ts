import { messageOf } from "../../config/errors.ts";

export interface Incident {
  /** Seconds since the traffic began. */
  readonly at: number;
  readonly who: string;
  readonly why: string;
}

const KEPT = 20;

/** The first few things that went wrong, with their time: what a flip did shows beside them. */
export class Trouble {
  readonly #started = performance.now();
  readonly #incidents: Incident[] = [];

  add(who: string, error: unknown): void {
    if (this.#incidents.length >= KEPT) return;
    const at = Math.round((performance.now() - this.#started) / 100) / 10;
    this.#incidents.push({ at, who, why: messageOf(error) });
  }

  get incidents(): readonly Incident[] {
    return this.#incidents;
  }
}
