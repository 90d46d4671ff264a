import type { RouteKind } from "../config/words.ts";
import type { CarriedToken, CausalCookie, CausalCookies } from "./causal-cookies.ts";
import type { Fence } from "./fences.ts";
import type { Decision } from "./route.ts";

/**
 * For so long after its last phase with reads from a follower a sidecar still gives tokens. Others may not know yet: within 3 s each
 * has heard or has noticed that it is cut off. One that heard of the next such phase first counts on the tokens from before; this one
 * hears of it within 3 s more.
 */
export const LINGER_MS = 10_000;

export interface TravelFacts {
  readonly epoch: number;
  readonly authority: "old" | "new";
  /** Another sidecar may let a follower answer reads, for all this one knows. */
  readonly issuing: boolean;
  /** The migration has begun and is not done: what the two sides show may differ. */
  readonly underWay: boolean;
}

export interface TravelAnswer<Carried extends CarriedToken = CausalCookie> {
  readonly kind: RouteKind;
  readonly side: Decision["side"];
  readonly carried: readonly Carried[];
  /** The client is one of those whose reads the follower is to answer. */
  readonly inShare: boolean;
  /** Written after all that the answer shows or did; undefined: none, or the answer is still coming. */
  readonly fence: Pick<Fence, "token"> | undefined;
}

/** The header fields by which an answer gives its client a token, and takes from it what that covers. */
export function tokenFields(
  cookies: CausalCookies,
  answer: TravelAnswer,
  facts: TravelFacts,
): string[] {
  const token = tokenOf(answer, facts);
  return token === undefined ? [] : cookies.setting(token, answer.carried);
}

/**
 * Which token an answer gives to its client, where the tokens travel with the clients from sidecar to sidecar.
 *
 * A write gives its fence. A read that the authority answered gives an open token, which costs nothing: the client's next read
 * takes a fence for it and waits a moment for it to pass (`Causality.redeem`), and only then leaves the authority, with that fence as its
 * token. A client that carries no token stays with the authority for good: it has shown nowhere that it keeps them.
 */
export function tokenOf(
  answer: TravelAnswer<CarriedToken>,
  facts: TravelFacts,
): CarriedToken | undefined {
  const { kind, side, carried, inShare, fence } = answer;
  const { epoch, authority } = facts;
  if (kind === "stream") return undefined;
  const open = { side: authority, epoch, fence: undefined };
  if (kind === "read" && side !== authority) return fence?.token ?? followed(carried, epoch);
  // A sidecar that is cut off may not know who the authority is now.
  const told = epoch === 1 || carried.some((token) => token.epoch >= epoch);
  if (facts.issuing) {
    if (kind === "write") return fence?.token ?? open;
    return inShare || !told || needsOpening(carried, epoch) ? open : undefined;
  }
  return !facts.underWay || told ? undefined : { side: authority, epoch, fence: 0n };
}

/** An answer of the side that a token of a newer epoch names is one of the authority: others may read from its follower. */
function followed(carried: readonly CarriedToken[], epoch: number): CarriedToken | undefined {
  const newest = carried.toSorted((a, b) => b.epoch - a.epoch)[0];
  if (newest === undefined || newest.epoch <= epoch) return undefined;
  const isOpen = carried.some((token) => token.epoch === newest.epoch && token.fence === undefined);
  return isOpen ? undefined : { side: newest.side, epoch: newest.epoch, fence: undefined };
}

/** A client outside of the share reads nowhere else: one open token keeps it right if it comes into the share. */
function needsOpening(carried: readonly CarriedToken[], epoch: number): boolean {
  const isOpen = carried.some((token) => token.epoch >= epoch && token.fence === undefined);
  return carried.length > 0 && !isOpen;
}
