import type { TokenBounds, TokenRule } from "./rules.ts";
import type { Sidecar, World } from "./state.ts";

/** What a part of the model needs to say which steps may be taken in a world. */
export interface Turn {
  readonly world: World;
  readonly bounds: TokenBounds;
  /** Whether a rule is kept. */
  readonly has: (rule: TokenRule) => boolean;
  /** A step that may be taken now: what it changes in a copy of the world. */
  readonly add: (label: string, change: (next: World) => void) => void;
}

/** One of the sidecars, in the world and in each copy of it. */
export interface Self {
  readonly turn: Turn;
  readonly who: number;
  readonly now: Sidecar;
  readonly other: Sidecar;
}

export const sidecarOf = (world: World, who: number): Sidecar => world.sidecars[who]!;

/** Whether this one goes on without the other: it is not seen any more, and has noticed that by itself. */
export function isWithout({ turn, other }: Self): boolean {
  const gone = turn.has("who is cut off has noticed before the others go on without it")
    ? other.connected === 0
    : other.linked === 0;
  return other.alive === 0 || gone;
}

/** Whether the other has heard that this one stores nothing, since it last came to that. */
export function isKnownToStoreNothing(self: Self): boolean {
  return self.other.knowsDoubt === 1 || isWithout(self);
}

/** Whether an answer may go out: what it binds is stored, or those who would have to know have heard that it is not. */
export function isPromised(self: Self, isStored: boolean): boolean {
  const isTold =
    self.now.connected === 1 || !self.turn.has("who is cut off from both promises nothing");
  return (isStored || isTold) && isKnownToStoreNothing(self);
}
