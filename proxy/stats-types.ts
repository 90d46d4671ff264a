import type { RouteKind, Side } from "../config/words.ts";
import type { RequestReport } from "../store/control/request-report.ts";
import type { ShadowReport } from "../store/control/shadow-report.ts";
import type { WindowReport } from "../store/control/side-reads.ts";

/** What a sidecar reports with every heartbeat: plain JSON, names as `status --json` has them. */
export interface SidecarStats {
  /** Since the sidecar started. */
  readonly traffic: readonly TrafficStats[];
  /** The same by route and answer, for the metrics. */
  readonly requests: readonly RequestReport[];
  readonly in_flight: number;
  readonly in_flight_writes: number;
  readonly streams: number;
  /** Reads that new could not answer in canary and old did. */
  readonly fallbacks: number;
  readonly held: HeldStats;
  readonly reads: ReadStats;
  readonly shadow: ShadowReport;
  /** Since phase, epoch or share last changed. */
  readonly window: WindowReport;
}

export interface TrafficStats {
  readonly side: Side;
  readonly kind: RouteKind;
  readonly requests: number;
  /** Responses with a 5xx status, and requests that got no response. */
  readonly errors: number;
  /** ms from the request's head to the response's end. Since start, and over the last reporting interval. */
  readonly latency: LatencyStats;
  readonly recent: LatencyStats;
}

export interface LatencyStats {
  readonly count: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

export interface HeldStats {
  /** Waiting now. */
  readonly now: number;
  /** Held since the sidecar started, and how long together those waited that wait no more. */
  readonly total: number;
  readonly total_seconds: number;
  /** An attempt that holds, or whose writes are not all answered yet: its report is still to come. */
  readonly pending: number | null;
  /** The newest attempt that held here and is over: what its receipt needs. */
  readonly attempt: number | null;
  readonly writes: number;
  /** Held writes that ended in an error: refused by the limit, or answered 5xx. */
  readonly failed: number;
  /** Clients that left while held; their writes were never sent. */
  readonly left: number;
  /** How long each held write of that attempt waited, ms. Cut at 10,000 entries; `max_ms` sees all. */
  readonly durations_ms: readonly number[];
  readonly max_ms: number;
}

export interface ReadStats {
  /** Share of clients whose reads new answers at this moment, 0–1. */
  readonly share: number;
  /** Share that phase and canary step ask for. */
  readonly wanted: number;
  /** Why the shares differ, or null. */
  readonly why: string | null;
  /** `open`: the new app does not answer, and is left alone but for a try now and then. */
  readonly breaker: "closed" | "open";
  /** How often it has opened. */
  readonly breaker_opened: number;
  /** Clients whose next read goes to the authority. */
  readonly pinned: number;
  /** `ok`, or why tokens cannot be kept in Redis; null: they are not. */
  readonly redis: string | null;
  /** Answers that went out although another sidecar might not know what they bind. */
  readonly unpromised: number;
}
