import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { ExchangeContext } from "./exchange-context.ts";
import { requestIdOf } from "./request-id.ts";
import { route } from "./route.ts";
import { openTunnel } from "./tunnel.ts";

type TunnelsContext = Pick<
  ExchangeContext,
  "classify" | "state" | "upstreams" | "headers" | "timeouts" | "causality" | "traffic"
>;

/** The tunnels of this sidecar. Nothing waits for them: they have no end of their own. */
export class Tunnels {
  readonly #context: TunnelsContext;
  readonly #sockets = new Set<Duplex>();

  constructor(context: TunnelsContext) {
    this.#context = context;
  }

  get size(): number {
    return this.#sockets.size;
  }

  /** An upgrade is a stream wherever it goes: only the authority and its route's pin decide. */
  open(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (socket.destroyed) return;
    const { classify, upstreams, headers, timeouts, causality, traffic } = this.#context;
    const state = this.#context.state();
    const url = request.url ?? "/";
    const { pin, route: name } = classify(request.method ?? "GET", url);
    const facts = { bucket: 0, share: 0, standing: "passed", holding: false } as const;
    const { side } = route({ state, kind: "stream", pin, ...facts });
    const started = performance.now();
    this.#sockets.add(socket);
    openTunnel(
      {
        request,
        socket,
        head,
        url,
        side,
        requestId: requestIdOf(request),
        upstream: upstreams[side],
        ownHeaders: headers ? ["crossfade-side", side] : [],
        headTimeoutMs: timeouts.headMs,
        ownCookies: causality.cookiePrefix,
      },
      (failed) => {
        this.#sockets.delete(socket);
        const on = { side, kind: "stream", route: name } as const;
        traffic.record(on, failed ? 0 : 101, failed, performance.now() - started);
      },
    );
  }

  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
