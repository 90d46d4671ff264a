/** The rules of docs/decisions/redis-tokens.md that the model knows. Each can be left out, to see what goes wrong without it. */
export const TOKEN_RULES = [
  "a write binds its client",
  "a fence is asked for after the write",
  "an open token is stored before the answer",
  "an answer waits until its token is stored, or the others know that it is not",
  "each holder has a field of its own",
  "the others' tokens are asked for",
  "a generation is checked in the same step",
  "the gate opens behind a fence",
  "all live sidecars are in step",
  "a broken pledge shuts the gate",
  "who is cut off has noticed before the others go on without it",
  "who is cut off asks for the epoch",
  "each epoch's authority is stored",
  "a newer epoch's token is followed",
  "who is cut off from both promises nothing",
  "a hold that ends at its deadline cuts off",
  "who is back says again what it stores",
  "an open token of an older epoch binds",
  "who follows a newer epoch promises only where nobody reads from a follower",
  "what was asked of one without a promise has none",
] as const;
export type TokenRule = (typeof TOKEN_RULES)[number];

/** What may happen: a Redis that forgets, a sidecar that loses Redis, is cut off from the control store, dies. */
export type Accident = "flush" | "loss" | "cut" | "death";

/** How far the model goes: every behaviour within these is looked at. */
export interface TokenBounds {
  /** What one sidecar is cut off from at the beginning, as it and the other know. */
  readonly away?: "control store" | "both";
  /** The epoch at the beginning, and how many flips the one that is away has missed by then. */
  readonly from?: number;
  readonly missed?: number;
  readonly epochs: number;
  readonly writes: number;
  /** Each of them once, to either sidecar, at any time. */
  readonly accidents: readonly Accident[];
}
