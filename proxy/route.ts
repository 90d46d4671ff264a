import { phaseIndex } from "../config/words.ts";
import type { Consistency, Phase, RouteKind, Side } from "../config/words.ts";
import type { RoutePlan } from "../config/plan-types.ts";
import type { RoutingState } from "./ports.ts";

/** What is known of the client's last fence: `newer` is of an epoch this sidecar has not heard of yet. */
export type Standing = "passed" | "unpassed" | { readonly newer: Side };

export interface RouteFacts {
  readonly state: RoutingState;
  readonly kind: RouteKind;
  /** What the route is pinned to, if it is. */
  readonly pin: RoutePlan["side"];
  /** The side an operator wants a read to be answered by. */
  readonly asked?: Side | undefined;
  /** Where the client stands in the canary, 0–1: salted, sticky. */
  readonly bucket: number;
  /** Share of clients that may read from the follower now; grows to the wanted share once it is safe. */
  readonly share: number;
  readonly standing: Standing;
  /** A hold is on and this write was not caused by one in flight. */
  readonly holding: boolean;
}

export type RouteReason =
  | "asked"
  | "pinned"
  | "authority"
  | "phase"
  | "own-write"
  | "newer-epoch"
  | "opening"
  | "resting"
  | "fallback";

export interface Decision {
  readonly side: Side;
  /** Wait until the hold ends, then decide again. */
  readonly hold: boolean;
  readonly reason: RouteReason;
  /** A failure may be answered by the other side: a read that phase and share sent to new in canary. */
  readonly fallback: boolean;
}

/** Which side answers a request. Pure and total: DESIGN §3 and §4 (Consistency) as one function. */
export function route(facts: RouteFacts): Decision {
  const { state, kind, pin } = facts;
  if (kind === "write") return to(pinned(pin, state) ?? state.authority, pin, facts.holding);
  if (kind === "read" && facts.asked !== undefined) return decide(facts.asked, "asked");
  if (kind === "stream" || pin !== undefined) {
    return to(pinned(pin, state) ?? state.authority, pin, false);
  }
  return routeRead(facts);
}

function routeRead({ state, bucket, share, standing }: RouteFacts): Decision {
  if (typeof standing === "object") return decide(standing.newer, "newer-epoch");
  const wanted = bucket < wantedShare(state) ? "new" : state.authority;
  if (wanted === state.authority) return decide(wanted, "phase");
  if (standing === "unpassed") return decide(state.authority, "own-write");
  if (bucket >= share) return decide(state.authority, "opening");
  return { ...decide(wanted, "phase"), fallback: state.phase === "canary" };
}

/**
 * Share of clients whose reads the follower should answer. Only new is ever read from as a follower: where new is the
 * authority, everything goes there.
 */
export function wantedShare(state: Pick<RoutingState, "phase" | "authority" | "readsNew">): number {
  if (state.authority === "new") return 0;
  if (state.phase === "canary") return state.readsNew;
  return phaseIndex(state.phase) > phaseIndex("canary") ? 1 : 0;
}

/** Whether a mirror runs in this phase, so that "is it in both schemas" is a question. */
export function isMirrored(phase: Phase, hasReverse: boolean): boolean {
  if (phase === "off" || phase === "done") return false;
  return phase !== "write-new" || hasReverse;
}

export type FenceNeed =
  | "none"
  /** The response waits until the fence is written. */
  | "before-response"
  /** The response waits until the fence has passed, or a limit. */
  | "until-passed";

export interface FenceFacts {
  readonly consistency: Consistency;
  readonly mirrored: boolean;
  /** Some client's read may be answered by the follower, now or soon. */
  readonly tracking: boolean;
  /** Fences are passing: waiting for one makes sense. */
  readonly passing: boolean;
}

/** What the answer to a write has to wait for. */
export function fenceFor(facts: FenceFacts): FenceNeed {
  if (facts.consistency === "eventual") return "none";
  // The app never pays for a mirror that is behind: strict then says `pending` at once.
  if (facts.consistency === "strict" && facts.mirrored && facts.passing) return "until-passed";
  return facts.tracking ? "before-response" : "none";
}

function pinned(pin: RoutePlan["side"], state: RoutingState): Side | undefined {
  return pin === "authority" ? state.authority : pin;
}

function to(side: Side, pin: RoutePlan["side"], hold: boolean): Decision {
  return { side, hold, reason: pin === undefined ? "authority" : "pinned", fallback: false };
}

function decide(side: Side, reason: RouteReason): Decision {
  return { side, hold: false, reason, fallback: false };
}
