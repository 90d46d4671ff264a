import type { Plan } from "../../config/plan-types.ts";
import type { Log } from "../../config/lifecycle.ts";
import type { RouteClass } from "../classify.ts";
import type { Fence } from "../fences.ts";
import type { ClientRequest } from "../inbound.ts";
import type { RoutingState } from "../ports.ts";
import type { Decision } from "../route.ts";

/** What a sidecar says of its requests, where the plan has `trace.otlp`. Nothing here ever fails or waits for the collector. */
export interface SidecarTracing {
  begin(request: ClientRequest, routeClass: RouteClass, requestId: string): RequestTrace;
  /** Ends the spans of fences that have passed, or that nobody expects to pass any more. */
  sweep(hasPassed: (fence: Fence) => boolean): void;
  stop(): Promise<void>;
}

/** One request: a span of the sidecar, one for each time an app is asked, one for the fence. */
export interface RequestTrace {
  /** An app is asked; the fields that tell it so replace the client's. */
  ask(decision: Decision, state: RoutingState): TraceFields;
  /** The app answered, or did not (status 0). */
  answered(status: number, error?: Error): void;
  held(): void;
  released(): void;
  /** The write takes a fence. */
  fence(): FenceTrace;
  /** The client has its answer, or has left; status 0: without any. */
  end(status: number): void;
}

export interface FenceTrace {
  /** Travels with the fence to the mirror; undefined: this trace is not recorded. */
  readonly parent: string | undefined;
  follow(fence: Fence): void;
}

/** W3C Trace Context towards the app. */
export interface TraceFields {
  readonly traceparent: string;
  /** Whether the client's `tracestate` belongs to it. */
  readonly keepsState: boolean;
}

/** What the mirror says of its passes. */
export interface MirrorTracing {
  passed(pass: TracedPass): void;
  stop(): Promise<void>;
}

export interface TracedPass {
  /** Of the fences that it passed. */
  readonly parents: readonly string[];
  readonly direction: string;
  readonly epoch: number;
  readonly pass: bigint;
  readonly fence: bigint;
  readonly keys: number;
  readonly lagMs: number;
  readonly tookMs: number;
}

/** The library is loaded only where spans are asked for: others pay nothing, not even memory. */
export async function openSidecarTracing(
  plan: Plan,
  instance: string,
  log: Log,
): Promise<SidecarTracing | undefined> {
  const { trace } = plan;
  if (trace === undefined) return undefined;
  const { OtelSidecarTracing } = await import("./sidecar-spans.ts");
  return new OtelSidecarTracing({ trace, plan: plan.name, role: "proxy", instance, log });
}

export async function openMirrorTracing(
  plan: Plan,
  instance: string,
  log: Log,
): Promise<MirrorTracing | undefined> {
  const { trace } = plan;
  if (trace === undefined) return undefined;
  const { OtelMirrorTracing } = await import("./mirror-spans.ts");
  return new OtelMirrorTracing({ trace, plan: plan.name, role: "mirror", instance, log });
}
