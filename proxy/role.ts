import { once } from "node:events";
import { hostname } from "node:os";
import type { Log } from "../config/lifecycle.ts";
import type { Plan } from "../config/plan-types.ts";
import { ControlLink } from "./control-link.ts";
import { PostgresFenceWriter } from "./fence-writer.ts";
import { startSidecar } from "./sidecar.ts";
import { openSidecarTracing } from "./trace/ports.ts";

export interface ProxyRoleOptions {
  readonly plan: Plan;
  readonly log: Log;
  /** Which of `proxy.processes` this is, from 1; undefined: the only one. */
  readonly place?: number | undefined;
  /** Aborted: stop accepting, finish what runs, resolve. */
  readonly signal: AbortSignal;
  /** Called once requests are taken. */
  readonly onReady?: (url: string) => void;
}

/** Runs a sidecar until the signal. Throws PORT_IN_USE before anything has started. */
export async function runProxyRole({
  plan,
  log,
  place,
  signal,
  onReady,
}: ProxyRoleOptions): Promise<void> {
  const { host, port } = plan.proxy.listen;
  const listen = `${host}:${port}`;
  // Two processes cannot have one address, or one place there: whoever has this name now is its only bearer.
  const id = `${hostname()}:${listen}${place === undefined ? "" : `#${place}`}`;
  const sidecar = await startSidecar({
    plan,
    log,
    source: new ControlLink({ plan, id, listen, log }),
    fences: new PostgresFenceWriter(plan, id),
    tracing: await openSidecarTracing(plan, id, log),
    place,
  });
  log.info({ url: sidecar.url }, "sidecar: taking requests");
  onReady?.(sidecar.url);
  if (!signal.aborted) await once(signal, "abort");
  log.info({}, "sidecar: draining");
  await sidecar.close();
}
