/** The words of the design, as types. Every other module uses these and no synonyms. */

export const SIDES = ["old", "new"] as const;
export type Side = (typeof SIDES)[number];

export const DIRECTIONS = ["forward", "reverse"] as const;
export type Direction = (typeof DIRECTIONS)[number];

export const PHASES = [
  "off",
  "dual-write",
  "backfill",
  "verify",
  "shadow",
  "canary",
  "read-new",
  "write-new",
  "done",
] as const;
export type Phase = (typeof PHASES)[number];

export const CONSISTENCIES = ["causal", "strict", "eventual"] as const;
export type Consistency = (typeof CONSISTENCIES)[number];

export const TOKEN_CARRIERS = ["cookie", "redis", "none"] as const;
export type TokenCarrier = (typeof TOKEN_CARRIERS)[number];

/** What of the new tables may be left out while rows are copied. */
export const DEFERRABLE = ["indexes", "foreign_keys"] as const;
export type Deferrable = (typeof DEFERRABLE)[number];

export const ROUTE_KINDS = ["read", "write", "stream"] as const;
export type RouteKind = (typeof ROUTE_KINDS)[number];

/** The side rows are read from while `direction` is active. */
export function sourceOf(direction: Direction): Side {
  return direction === "forward" ? "old" : "new";
}

/** The side rows are written to while `direction` is active. */
export function targetOf(direction: Direction): Side {
  return direction === "forward" ? "new" : "old";
}

/** The direction in which `side` is the source, and so the authority. */
export function directionFrom(side: Side): Direction {
  return side === "old" ? "forward" : "reverse";
}

export function otherSide(side: Side): Side {
  return side === "old" ? "new" : "old";
}

export function phaseIndex(phase: Phase): number {
  return PHASES.indexOf(phase);
}

export function isPhase(word: string): word is Phase {
  return (PHASES as readonly string[]).includes(word);
}
