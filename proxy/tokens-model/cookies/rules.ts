/** The rules of docs/decisions/causal-cookies.md that the model knows. Each can be left out, to see what goes wrong without it. */
export const COOKIE_RULES = [
  "a write gives a token",
  "a read of the authority gives an open token",
  "what goes on gives an open token",
  "a fence is asked for after the write",
  "every token has a name of its own",
  "an answer takes away only what its token covers",
  "every token that is carried binds",
  "an open token binds",
  "an open token of an older epoch binds",
  "no token is no promise",
  "a token of another migration is none",
  "a newer epoch's token is followed",
  "who follows a newer epoch gives an open token of it",
  "after a flip every answer names the epoch",
  "what was answered binds the client here, too",
  "the gate opens behind a fence",
  "all live sidecars are in step",
  "who is back counts on what is said since",
  "who is cut off has noticed before the others go on without it",
  "who is cut off gives tokens",
  "tokens are given for a while after the last phase that needs them",
  "an open token is given outside of the share, too",
  "a hold that ends at its deadline cuts off",
  "who is cut off promises nothing of what it took for a follower's answer",
] as const;
export type CookieRule = (typeof COOKIE_RULES)[number];

/** What is not promised: each can be allowed, to see that something goes wrong with all rules. */
export const COOKIE_LIMITS = [
  "reads through another sidecar while an answer is still coming",
  "reads through another sidecar what it wrote without an answer",
  "has two cookie jars",
  "forgets some of its tokens and keeps others",
  "keeps no cookies and asks a sidecar that missed a flip",
  "writes through a sidecar that missed two flips while the second ends",
  "still receives an answer when a flip ends and asks a sidecar that missed it",
  "reads through a sidecar that missed two flips with a token of the first",
] as const;
export type CookieLimit = (typeof COOKIE_LIMITS)[number];

/** What may happen: a sidecar is cut off from the control store, dies, is killed and started again from what its disk remembers. */
export type CookieAccident = "cut" | "death" | "restart";

/** Where the migration stands. Old is the authority of the first epoch, 1, new of the next. Reads of new are wanted only while old is. */
export interface Stage {
  readonly epoch: number;
  readonly wanted: boolean;
}

/** How far the model goes: every behaviour within these is looked at. */
export interface CookieBounds {
  /** What the controller goes through, one after another. */
  readonly stages: readonly Stage[];
  readonly writes: number;
  /** The client only reads; others write. */
  readonly reads: boolean;
  /** Requests of the client that are under way at once. */
  readonly requests: 1 | 2;
  /** The client keeps cookies. */
  readonly keeps: boolean;
  /** Answers may go on after their head was sent. */
  readonly long: boolean;
  /** Sidecars hear late of what has passed. */
  readonly late: boolean;
  /** One sidecar is cut off from the beginning, and has noticed. */
  readonly away: boolean;
  /** Each of them once, to either sidecar, at any time. */
  readonly accidents: readonly CookieAccident[];
  readonly allowed?: CookieLimit;
}
