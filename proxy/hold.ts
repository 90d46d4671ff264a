import type { HoldState } from "./ports.ts";

/** A write that waits. Exactly one of the two is called, unless it leaves. */
export interface HeldWrite {
  readonly requestId: string;
  /** What is kept of it in memory: its head, and its content if that was read before the hold. */
  readonly bytes: number;
  go(heldMs: number): void;
  refuse(heldMs: number, why: "full" | "limit"): void;
}

export interface HoldGateOptions {
  /** The longest one write may wait, over however many leases: then it is refused. */
  readonly limitMs: number;
  readonly maxHeld: number;
  readonly maxHeldBytes: number;
  /** Something that an acknowledgement says has changed. */
  readonly onChange: () => void;
  readonly record: HoldRecorder;
}

export interface HoldRecorder {
  began(attempt: number): void;
  ended(attempt: number): void;
  held(attempt: number): void;
  released(attempt: number, ms: number): void;
  refused(attempt: number, ms: number): void;
  left(attempt: number): void;
}

interface Waiting {
  readonly write: HeldWrite;
  readonly attempt: number;
  readonly since: number;
}

/**
 * The hold: writes wait here while the authority moves.
 *
 * A hold is a lease (DESIGN §2.8). It ends when the state says so, or at its deadline, when this sidecar lifts it by itself
 * and sends what waited where it last knew the authority: before the decision that is right, after it the guard of the closed
 * side refuses, and a refused write is not repeated. A controller that needs longer renews the lease: then a write may wait
 * through several, and that is what the limit is for: DESIGN §2.7's "held, and 503 after the lease". The limit is a multiple
 * of `flip.hold`, so that in an ordinary flip, in which the budget ends first, nobody ever meets it.
 *
 * The queue is first in, first out, so every client's writes leave in the order they came.
 */
export class HoldGate {
  readonly #options: HoldGateOptions;
  #hold: HoldState | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #limit: NodeJS.Timeout | undefined;
  readonly #waiting = new Set<Waiting>();
  #bytes = 0;
  /** Writes sent to an app and not answered, by request id. */
  readonly #inFlight = new Map<string, number>();
  #inFlightWrites = 0;

  constructor(options: HoldGateOptions) {
    this.#options = options;
  }

  get inFlightWrites(): number {
    return this.#inFlightWrites;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** The attempt that holds now. */
  get attempt(): number | undefined {
    return this.#hold?.attempt;
  }

  /** The attempt to acknowledge: its hold is on and nothing that a flip waits for is in flight. */
  get kept(): number | null {
    return this.#hold !== undefined && this.#inFlightWrites === 0 ? this.#hold.attempt : null;
  }

  /** Whether a write has to wait: not one that a write in flight has caused, which could never be answered then. */
  holds(requestId: string): boolean {
    return this.#hold !== undefined && !this.#inFlight.has(requestId);
  }

  /** Whether a write in flight has caused this one: it cannot be answered before this one is. */
  isCaused(requestId: string): boolean {
    return this.#inFlight.has(requestId);
  }

  /** The state says what is held now. */
  update(hold: HoldState | null): void {
    clearTimeout(this.#deadline);
    const left = hold === null ? 0 : hold.deadline - performance.now();
    if (hold === null || left <= 0) {
      this.#lift();
      return;
    }
    this.#hold = hold;
    this.#options.record.began(hold.attempt);
    this.#deadline = setTimeout(() => this.#lift(), left);
  }

  /** Queues a write; the function returned takes it off again, for a client that leaves. */
  enter(write: HeldWrite): () => void {
    const attempt = this.#hold?.attempt ?? 0;
    this.#options.record.held(attempt);
    const { maxHeld, maxHeldBytes } = this.#options;
    if (this.#waiting.size >= maxHeld || this.#bytes + write.bytes > maxHeldBytes) {
      this.#options.record.refused(attempt, 0);
      write.refuse(0, "full");
      return () => {};
    }
    const waiting: Waiting = { write, attempt, since: performance.now() };
    this.#waiting.add(waiting);
    this.#bytes += write.bytes;
    if (this.#limit === undefined) this.#armLimit();
    return () => {
      if (!this.#waiting.delete(waiting)) return;
      this.#bytes -= write.bytes;
      this.#options.record.left(attempt);
    };
  }

  /** A write is sent to an app. */
  begin(requestId: string): void {
    this.#inFlightWrites += 1;
    this.#inFlight.set(requestId, (this.#inFlight.get(requestId) ?? 0) + 1);
  }

  /** The app has answered it, or never will. */
  end(requestId: string): void {
    this.#inFlightWrites -= 1;
    const others = (this.#inFlight.get(requestId) ?? 1) - 1;
    if (others === 0) this.#inFlight.delete(requestId);
    else this.#inFlight.set(requestId, others);
    if (this.#hold !== undefined && this.#inFlightWrites === 0) this.#options.onChange();
  }

  stop(): void {
    clearTimeout(this.#deadline);
    clearTimeout(this.#limit);
  }

  #lift(): void {
    const was = this.#hold;
    this.#hold = undefined;
    clearTimeout(this.#limit);
    this.#limit = undefined;
    const now = performance.now();
    const released = [...this.#waiting];
    this.#waiting.clear();
    this.#bytes = 0;
    for (const { write, attempt, since } of released) {
      this.#options.record.released(attempt, now - since);
      write.go(now - since);
    }
    if (was === undefined) return;
    this.#options.record.ended(was.attempt);
    this.#options.onChange();
  }

  /** All wait equally long at most, so the first in the queue is the first to give up. */
  #armLimit(): void {
    const [first] = this.#waiting;
    this.#limit = undefined;
    if (first === undefined) return;
    const left = first.since + this.#options.limitMs - performance.now();
    this.#limit = setTimeout(() => this.#giveUp(), Math.max(1, left));
  }

  #giveUp(): void {
    const now = performance.now();
    for (const waiting of this.#waiting) {
      const ms = now - waiting.since;
      if (ms < this.#options.limitMs) break;
      this.#waiting.delete(waiting);
      this.#bytes -= waiting.write.bytes;
      this.#options.record.refused(waiting.attempt, ms);
      waiting.write.refuse(ms, "limit");
    }
    this.#armLimit();
  }
}
