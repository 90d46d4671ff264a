import type { RouteKind } from "../config/words.ts";
import type { CausalCookie, CausalCookies } from "./causal-cookies.ts";
import type { Fence } from "./fences.ts";
import type { Decision } from "./route.ts";

/** For so long after its last phase with reads from a follower a sidecar still gives tokens: others may not know yet. */
export const LINGER_MS = 5_000;

export interface TravelFacts {
  readonly epoch: number;
  readonly authority: "old" | "new";
  /** Another sidecar may let a follower answer reads, for all this one knows. */
  readonly issuing: boolean;
  /** A mirror runs: the sides differ for a moment after each write. */
  readonly mirrored: boolean;
}

export interface TravelAnswer {
  readonly kind: RouteKind;
  readonly side: Decision["side"];
  readonly carried: readonly CausalCookie[];
  /** The client is one of those whose reads the follower is to answer. */
  readonly inShare: boolean;
  /** Written after all that the answer shows or did; undefined: none, or the answer is still coming. */
  readonly fence: Fence | undefined;
}

/**
 * Which token an answer gives to its client, where the tokens travel with the clients from sidecar to sidecar.
 *
 * A write gives its fence. A read that the authority answered gives an open token, which costs nothing: the client's next read
 * takes a fence for it and waits a moment for it to pass (`Causality.redeem`), and only then leaves the authority, with that fence as its
 * token. A client that carries no token stays with the authority for good: it has shown nowhere that it keeps them.
 */
export function tokenFields(
  cookies: CausalCookies,
  answer: TravelAnswer,
  facts: TravelFacts,
): string[] {
  const { kind, side, carried, inShare, fence } = answer;
  const { epoch, authority } = facts;
  if (kind === "stream") return [];
  const open = { side: authority, epoch, fence: undefined };
  if (kind === "read" && side !== authority) {
    return fence?.token === undefined ? [] : cookies.setting(fence.token, carried);
  }
  if (facts.issuing) {
    if (kind === "write") return cookies.setting(fence?.token ?? open, carried);
    return inShare || needsOpening(carried, epoch) ? cookies.setting(open, carried) : [];
  }
  // Nobody reads from a follower, but a sidecar that is cut off may not know who the authority is now.
  const told = epoch === 1 || carried.some((token) => token.epoch >= epoch);
  return !facts.mirrored || told
    ? []
    : cookies.setting({ side: authority, epoch, fence: 0n }, carried);
}

/** A client outside of the share reads nowhere else: one open token keeps it right if it comes into the share. */
function needsOpening(carried: readonly CausalCookie[], epoch: number): boolean {
  const isOpen = carried.some((token) => token.epoch >= epoch && token.fence === undefined);
  return carried.length > 0 && !isOpen;
}
