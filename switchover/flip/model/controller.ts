import type { FlipRule } from "./rules.ts";
import {
  ARMED,
  AT,
  ATTEMPT,
  authorityAt,
  base,
  CHECKED,
  CONTROLLER,
  CONTROLLER_SIZE,
  ENDED,
  flush,
  GUARD,
  NUMBER,
  of,
  OWNER,
  place,
  PLACES,
  SIDES,
  TARGET,
  TO_EPOCH,
} from "./state.ts";
import type { Place, State } from "./state.ts";
import type { Turn } from "./turn.ts";

type Change = (next: number[]) => void;

/** One controller in one state: where it is, and the kinds of steps that an attempt and a recovery are made of. */
export class Controller {
  readonly state: State;
  /** Where its numbers begin. */
  readonly c: number;
  readonly at: Place;
  /** Of the attempt it works for. */
  readonly number: number;
  readonly target: number;
  readonly from: number;
  readonly to: number;
  readonly #turn: Turn;
  readonly #me: number;

  constructor(turn: Turn, me: number) {
    this.#turn = turn;
    this.#me = me;
    this.state = turn.state;
    this.c = CONTROLLER + me * CONTROLLER_SIZE;
    this.at = PLACES[turn.state[this.c + AT]!]!;
    this.number = turn.state[this.c + NUMBER]!;
    this.target = turn.state[this.c + TO_EPOCH]!;
    this.to = authorityAt(this.target);
    this.from = 1 - this.to;
  }

  get bounds(): Turn["bounds"] {
    return this.#turn.bounds;
  }

  has(rule: FlipRule): boolean {
    return this.#turn.has(rule);
  }

  /** A step after which it is at `then`. */
  step(label: string, then: Place, change: Change = () => {}): void {
    this.#turn.add(`${this.#me}: ${label}`, (next) => {
      change(next);
      next[this.c + CHECKED] = 0;
      if (then === "idle") next.fill(0, this.c, this.c + CONTROLLER_SIZE);
      next[this.c + AT] = place(then);
    });
  }

  /** A change of one side by itself: waits for the row, gives up if another attempt has taken over; flushed. */
  fenced(side: number, label: string, { leadsTo, change, when = true }: Fenced): void {
    const unlocked = !this.has("lock and check are one");
    if (of(this.state, side, OWNER) !== 0 && !unlocked) return;
    const changes = () =>
      this.step(label, leadsTo, (next) => {
        change(next);
        flush(next, side);
      });
    if (this.state[this.c + CHECKED] === 1) {
      if (of(this.state, side, OWNER) === 0) changes();
      return;
    }
    const isNewest = of(this.state, side, ATTEMPT) === this.number && when;
    if (!isNewest && this.has("a step is made for the newest attempt"))
      this.step(`${label}: taken over`, "idle");
    else if (unlocked)
      this.#turn.add(`${this.#me}: ${label}: checks`, (next) => (next[this.c + CHECKED] = 1));
    else changes();
  }

  /** Writes its attempt into a side's row, as running. */
  writeAttempt(next: number[], side: number, { number, target }: AttemptNumbers = this): void {
    next[base(side) + ATTEMPT] = number;
    next[base(side) + TARGET] = target;
    next[base(side) + ENDED] = 0;
  }

  /** Whether its transaction on a side is there. */
  holds(side: number): boolean {
    return of(this.state, side, OWNER) === this.#me + 1;
  }

  take(next: number[], side: number): void {
    next[base(side) + OWNER] = this.#me + 1;
  }

  /** Before the decision: its transactions are rolled back, and a recovery cleans up. */
  fails(label: string, change: Change = () => {}): void {
    this.step(`${label} fails`, "failed", (next) => {
      for (const side of SIDES) if (this.holds(side)) next[base(side) + OWNER] = 0;
      change(next);
    });
  }

  disarm(side: number): void {
    if (of(this.state, side, OWNER) !== 0) return;
    const isNewest = of(this.state, side, ATTEMPT) === this.number;
    const allowed =
      isNewest && of(this.state, side, ENDED) === 1 && of(this.state, side, GUARD) === 0;
    if (allowed || !this.has("a disarm needs the newest ended attempt and an open guard"))
      this.step(`disarms ${side}`, "idle", (next) => {
        next[base(side) + ARMED] = 0;
        if (!this.has("the follower stays armed")) next[base(1 - side) + ARMED] = 0;
      });
    else this.step("may not disarm", "idle");
  }
}

interface Fenced {
  readonly leadsTo: Place;
  readonly change: Change;
  /** What is expected besides the attempt. */
  readonly when?: boolean;
}

interface AttemptNumbers {
  readonly number: number;
  readonly target: number;
}
