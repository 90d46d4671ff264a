import { ROOT_CONTEXT, SpanKind, trace as api } from "@opentelemetry/api";
import { parseTraceParent } from "@opentelemetry/core";
import { type Exporter, type ExporterOptions, openExporter } from "./exporter.ts";
import type { MirrorTracing, TracedPass } from "./ports.ts";

/** The pass that carried a write over, as a span in that write's own trace: below its fence. */
export class OtelMirrorTracing implements MirrorTracing {
  readonly #exporter: Exporter;

  constructor(options: ExporterOptions) {
    this.#exporter = openExporter(options);
  }

  passed({ parents, direction, epoch, pass, fence, keys, lagMs, tookMs }: TracedPass): void {
    const endTime = Date.now();
    for (const parent of parents) {
      const context = parseTraceParent(parent);
      if (context === null) continue;
      const span = this.#exporter.tracer.startSpan(
        "mirror pass",
        {
          kind: SpanKind.CONSUMER,
          startTime: endTime - tookMs,
          attributes: {
            "crossfade.direction": direction,
            "crossfade.epoch": epoch,
            "crossfade.pass": pass.toString(),
            "crossfade.fence": fence.toString(),
            "crossfade.keys": keys,
            "crossfade.lag_ms": lagMs,
          },
        },
        api.setSpanContext(ROOT_CONTEXT, { ...context, isRemote: true }),
      );
      span.end(endTime);
    }
  }

  async stop(): Promise<void> {
    await this.#exporter.stop();
  }
}
