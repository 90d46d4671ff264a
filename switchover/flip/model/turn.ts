import type { FlipBounds, FlipRule } from "./rules.ts";
import type { State } from "./state.ts";

/** What a part of the model needs to say which steps it may take in a state. */
export interface Turn {
  readonly state: State;
  readonly bounds: FlipBounds;
  /** Whether a rule is kept. */
  readonly has: (rule: FlipRule) => boolean;
  /** A step that may be taken now: what it changes in a copy of the state. */
  readonly add: (label: string, change: (next: number[]) => void) => void;
}
