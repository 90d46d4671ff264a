import type { Side } from "../config/words.ts";
import type { AskedSide } from "./asked-side.ts";
import type { Breaker } from "./breaker.ts";
import type { Causality } from "./causality.ts";
import type { Classify } from "./classify.ts";
import type { Exchange } from "./exchange.ts";
import type { HoldGate } from "./hold.ts";
import type { RoutingState } from "./ports.ts";
import type { Refusals } from "./refusals.ts";
import type { Shadow } from "./shadow/shadow.ts";
import type { HeldRecorder, TrafficRecorder } from "./stats.ts";
import type { SidecarTracing } from "./trace/ports.ts";
import type { Upstream, UpstreamTimeouts } from "./upstream.ts";

/** What every exchange of a sidecar shares. */
export interface ExchangeContext {
  readonly upstreams: Readonly<Record<Side, Upstream>>;
  readonly timeouts: UpstreamTimeouts;
  readonly classify: Classify;
  readonly askedSide: AskedSide;
  readonly state: () => RoutingState;
  readonly causality: Causality;
  readonly hold: HoldGate;
  readonly traffic: TrafficRecorder;
  /** For reads of new while it is not the authority. */
  readonly breaker: Breaker;
  readonly held: HeldRecorder;
  readonly refusals: Refusals;
  readonly shadow: Shadow;
  /** undefined: the plan asks for no traces. */
  readonly tracing: SidecarTracing | undefined;
  /** Whether a read that new fails in canary is answered by old. */
  readonly fallback: boolean;
  /** Whether answers carry `crossfade-*` fields. */
  readonly headers: boolean;
  /** How long the answer to a write may wait for its fence to be written (`causal`) and to pass (`strict`). */
  readonly fenceMs: number;
  readonly strictMs: number;
  /** How long a client may pause within the content of its request. */
  readonly bodyMs: number;
  /** When a client whose write met maintenance may try again. */
  readonly retryAfterMs: number;
  /** The client has its answer, or has left. */
  readonly onOver: (exchange: Exchange) => void;
}
