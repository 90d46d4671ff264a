import type { Tracer } from "@opentelemetry/api";
import { setGlobalErrorHandler } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../../config/errors.ts";
import type { Log } from "../../config/lifecycle.ts";
import type { TracePlan } from "../../config/plan-types.ts";
import { packageVersion } from "../../config/version.ts";

export interface ExporterOptions {
  readonly trace: TracePlan;
  readonly plan: string;
  readonly role: string;
  readonly instance: string;
  readonly log: Log;
}

export interface Exporter {
  readonly tracer: Tracer;
  /** What is there goes out, if the collector takes it soon. */
  stop(): Promise<void>;
}

const EXPORT = { everyMs: 1_000, timeoutMs: 5_000, queue: 4_096, batch: 512 } as const;
const STOP_MS = 2_000;
/** A collector that is away is said once in so long. */
const COMPLAIN_MS = 60_000;

/**
 * Spans go out in batches beside the work. A full queue drops the newest: neither memory nor requests wait for the collector.
 * Headers, compression and certificates of the collector are read from OTEL_EXPORTER_OTLP_* by the library.
 */
export function openExporter({ trace, plan, role, instance, log }: ExporterOptions): Exporter {
  complainInto(log);
  const version = packageVersion();
  const exporter = new OTLPTraceExporter({
    url: tracesUrl(trace.otlp),
    timeoutMillis: EXPORT.timeoutMs,
  });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      "service.name": "crossfade",
      "service.version": version,
      "service.instance.id": instance,
      "crossfade.plan": plan,
      "crossfade.role": role,
    }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(trace.sample) }),
    spanProcessors: [
      new BatchSpanProcessor({
        exporter,
        scheduledDelayMillis: EXPORT.everyMs,
        exportTimeoutMillis: EXPORT.timeoutMs,
        maxQueueSize: EXPORT.queue,
        maxExportBatchSize: EXPORT.batch,
      }),
    ],
  });
  return {
    tracer: provider.getTracer("crossfade", version),
    async stop() {
      const gone = provider.shutdown().catch(() => {});
      await Promise.race([gone, sleep(STOP_MS, undefined, { ref: false })]);
    },
  };
}

/** As the standard's variable: the address of the collector, to which the path of traces is added. */
function tracesUrl(otlp: string): string {
  const base = otlp.replace(/\/+$/, "");
  return base.endsWith("/v1/traces") ? base : `${base}/v1/traces`;
}

function complainInto(log: Log): void {
  let saidAt = -Infinity;
  setGlobalErrorHandler((error) => {
    if (performance.now() - saidAt < COMPLAIN_MS) return;
    saidAt = performance.now();
    log.warn(
      {},
      `traces: the collector does not take spans: ${messageOf(error)}; they are dropped`,
    );
  });
}
