import {
  type Attributes,
  type Context,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace as api,
  TraceFlags,
  type Tracer,
} from "@opentelemetry/api";
import { parseTraceParent } from "@opentelemetry/core";
import type { RouteClass } from "../classify.ts";
import type { Fence } from "../fences.ts";
import type { ClientRequest } from "../inbound.ts";
import type { RoutingState } from "../ports.ts";
import type { Decision } from "../route.ts";
import { type Exporter, type ExporterOptions, openExporter } from "./exporter.ts";
import type { FenceTrace, RequestTrace, SidecarTracing, TraceFields } from "./ports.ts";

/** The mirror stands still, or the sidecar was cut off: a span that never ends is never seen. */
const GIVEN_UP_MS = 60_000;
/** So many fences at once are waited for; the spans of more end as they are written. */
const MOST_OPEN = 10_000;

export class OtelSidecarTracing implements SidecarTracing {
  readonly #exporter: Exporter;
  readonly #open = new Map<Span, Fence>();

  constructor(options: ExporterOptions) {
    this.#exporter = openExporter(options);
  }

  begin(request: ClientRequest, routeClass: RouteClass, requestId: string): RequestTrace {
    return new RequestSpans({
      tracer: this.#exporter.tracer,
      request,
      routeClass,
      requestId,
      follow: (span, fence) => this.#follow(span, fence),
    });
  }

  sweep(hasPassed: (fence: Fence) => boolean): void {
    for (const [span, fence] of this.#open) {
      const passed = hasPassed(fence);
      if (passed || performance.now() - fence.askedAt > GIVEN_UP_MS) this.#end(span, fence, passed);
    }
  }

  async stop(): Promise<void> {
    for (const [span, fence] of this.#open) this.#end(span, fence, false);
    await this.#exporter.stop();
  }

  #follow(span: Span, fence: Fence): void {
    fence.whenWritten((token) => {
      span.setAttributes({
        "crossfade.fence": token.fence.toString(),
        "crossfade.epoch": token.epoch,
        "crossfade.side": token.side,
      });
      span.addEvent("written");
    });
    if (this.#open.size < MOST_OPEN) this.#open.set(span, fence);
    else span.end();
  }

  #end(span: Span, fence: Fence, passed: boolean): void {
    this.#open.delete(span);
    span.setAttribute("crossfade.passed", passed);
    if (!passed) span.setStatus({ code: SpanStatusCode.ERROR, message: notPassed(fence) });
    span.end();
  }
}

function notPassed(fence: Fence): string {
  return fence.token === undefined
    ? "the fence was not written"
    : "the mirror has not passed this fence while the sidecar waited";
}

interface SpansOptions {
  readonly tracer: Tracer;
  readonly request: ClientRequest;
  readonly routeClass: RouteClass;
  readonly requestId: string;
  readonly follow: (span: Span, fence: Fence) => void;
}

class RequestSpans implements RequestTrace {
  readonly #tracer: Tracer;
  readonly #follow: SpansOptions["follow"];
  readonly #span: Span;
  readonly #within: Context;
  readonly #keepsState: boolean;
  readonly #method: string;
  #asked: Span | undefined;

  constructor({ tracer, request, routeClass, requestId, follow }: SpansOptions) {
    this.#tracer = tracer;
    this.#follow = follow;
    this.#method = request.method ?? "GET";
    const parent = parentOf(request.headers["traceparent"]);
    this.#keepsState = parent !== undefined;
    const outside = parent === undefined ? ROOT_CONTEXT : api.setSpanContext(ROOT_CONTEXT, parent);
    const attributes: Attributes = {
      "http.request.method": this.#method,
      // Without the query: it may hold what is nobody's business.
      "url.path": pathOf(request.url ?? "/"),
      "http.route": routeClass.route,
      "crossfade.kind": routeClass.kind,
      "crossfade.request_id": requestId,
    };
    const name = `${this.#method} ${routeClass.route}`;
    this.#span = tracer.startSpan(name, { kind: SpanKind.SERVER, attributes }, outside);
    this.#within = api.setSpan(outside, this.#span);
  }

  ask({ side, reason }: Decision, { phase, epoch }: RoutingState): TraceFields {
    const where = { "crossfade.side": side, "crossfade.phase": phase, "crossfade.epoch": epoch };
    this.#span.setAttributes(where);
    const attributes = {
      ...where,
      "http.request.method": this.#method,
      "crossfade.reason": reason,
    };
    this.#asked = this.#tracer.startSpan(
      `${this.#method} ${side} app`,
      { kind: SpanKind.CLIENT, attributes },
      this.#within,
    );
    return { traceparent: traceparentOf(this.#asked), keepsState: this.#keepsState };
  }

  answered(status: number, error?: Error): void {
    const span = this.#asked;
    this.#asked = undefined;
    if (span !== undefined) endHttp(span, status, error?.message);
  }

  held(): void {
    this.#span.addEvent("held");
  }

  released(): void {
    this.#span.addEvent("released");
  }

  fence(): FenceTrace {
    const span = this.#tracer.startSpan("fence", { kind: SpanKind.PRODUCER }, this.#within);
    return {
      parent: span.isRecording() ? traceparentOf(span) : undefined,
      follow: (fence) => this.#follow(span, fence),
    };
  }

  end(status: number): void {
    this.answered(0);
    endHttp(this.#span, status, status === 0 ? "the client left" : undefined);
  }
}

function endHttp(span: Span, status: number, error: string | undefined): void {
  if (status > 0) span.setAttribute("http.response.status_code", status);
  if (status === 0 || status >= 500 || error !== undefined) {
    span.setStatus({
      code: SpanStatusCode.ERROR,
      ...(error === undefined ? {} : { message: error }),
    });
  }
  span.end();
}

function parentOf(field: string | string[] | undefined) {
  const parent = typeof field === "string" ? parseTraceParent(field.trim()) : null;
  return parent === null ? undefined : { ...parent, isRemote: true };
}

function traceparentOf(span: Span): string {
  const { traceId, spanId, traceFlags } = span.spanContext();
  const flags = (traceFlags & TraceFlags.SAMPLED).toString(16).padStart(2, "0");
  return `00-${traceId}-${spanId}-${flags}`;
}

function pathOf(url: string): string {
  const end = url.search(/[?#]/);
  return end === -1 ? url : url.slice(0, end);
}
