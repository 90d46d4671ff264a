import type { Plan } from "../config/plan-types.ts";
import type { BreakerOptions } from "./breaker.ts";
import { DEFAULT_SHADOW_LIMITS } from "./shadow/shadow.ts";
import type { ShadowLimits } from "./shadow/shadow.ts";
import type { UpstreamTimeouts } from "./upstream.ts";

/** Settings with sane defaults; tests shorten them. */
export interface SidecarLimits {
  readonly timeouts: UpstreamTimeouts;
  /** `causal`: how long the answer to a write waits for its fence to be written. */
  readonly fenceMs: number;
  /** The longest one write may be held, over several leases. Default: four times `flip.hold`, at least 2 s. */
  readonly heldMs: number;
  readonly maxHeld: number;
  readonly maxHeldBytes: number;
  /** How many clients may be bound by fences at once. */
  readonly maxBound: number;
  /** When the new app is left alone, and for how long. */
  readonly breaker: BreakerOptions;
  /** How long `close` waits for what runs. */
  readonly drainMs: number;
  readonly shadow: ShadowLimits;
  /** How often the files of `proxy.tls` are looked at; undefined: as often as renewals ask for. */
  readonly tlsLookMs?: number;
}

/** What the plan says, and what no plan needs to say. */
export function defaultLimits(plan: Plan): SidecarLimits {
  return {
    timeouts: { ...plan.proxy.appTimeouts, fallbackHeadMs: plan.canary.fallbackAfterMs },
    fenceMs: 5,
    heldMs: plan.flip.held.ms,
    maxHeld: plan.flip.held.writes,
    maxHeldBytes: plan.flip.held.bytes,
    maxBound: 100_000,
    breaker: {},
    drainMs: 10_000,
    shadow: DEFAULT_SHADOW_LIMITS,
  };
}
