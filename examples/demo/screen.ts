import { styleText } from "node:util";
import type { Receipt } from "../../store/control/history.ts";
import type { Traffic } from "../support/traffic.ts";
import type { LiveState, LiveView } from "./live.ts";

/** All that people read. With `--json` it goes to stderr, because stdout is the verdict's. */
export class Screen {
  readonly #stream: NodeJS.WriteStream;
  readonly #started = performance.now();

  constructor(json: boolean) {
    this.#stream = json ? process.stderr : process.stdout;
    // Whoever read along is gone (`| head`): go on, and clean up at the end.
    this.#stream.on("error", () => {});
  }

  /** A step that begins. */
  step(text: string): void {
    this.line(this.#bold(`${this.#clock()} ▸ ${text}`));
  }

  line(text: string): void {
    this.#stream.write(`${text}\n`);
  }

  receipt(receipt: Receipt): void {
    this.line(`         ${receiptText(receipt)}`);
    this.line(`         ${receipt.steps.map(({ name, ms }) => `${name} ${time(ms)}`).join(" · ")}`);
  }

  /** One line about the last second. */
  live(state: LiveState | undefined, second: Second): void {
    const { rate, latency, failed, stale } = second;
    const trouble = failed + stale > 0;
    const counts = `failed ${failed} stale ${stale}`;
    const parts = [
      this.#clock(),
      (state?.phase ?? "?").padEnd(10),
      `writes ${state?.authority ?? "?"}`,
      `reads ${state === undefined ? "?" : readsText(state.readsNew)}`.padEnd(19),
      `${String(Math.round(rate)).padStart(4)} req/s`,
      `p50 ${latency.p50_ms.toFixed(1).padStart(5)} p99 ${latency.p99_ms.toFixed(1).padStart(6)} ms`,
      trouble ? styleText("red", counts, { stream: this.#stream }) : counts,
      `lag ${state?.lagMs === undefined ? "–" : time(state.lagMs)}`.padEnd(10),
      ...(state?.backfill === undefined ? [] : [`copied ${Math.floor(state.backfill * 100)} %`]),
    ];
    this.line(parts.join("  "));
  }

  #clock(): string {
    return `${((performance.now() - this.#started) / 1000).toFixed(1).padStart(5)} s`;
  }

  #bold(text: string): string {
    return styleText("bold", text, { stream: this.#stream });
  }
}

/** What the traffic saw in one second. */
export interface Second {
  readonly rate: number;
  readonly latency: { readonly p50_ms: number; readonly p99_ms: number };
  readonly failed: number;
  readonly stale: number;
}

/** Prints a line a second until `stop` is called. */
export function showLive(screen: Screen, view: LiveView, traffic: Traffic): () => Promise<void> {
  let last = { at: performance.now(), requests: traffic.counters.requests };
  let printing: Promise<void> = Promise.resolve();
  const print = async () => {
    const state = await view.read();
    const { requests, failed, reads } = traffic.counters;
    const now = { at: performance.now(), requests };
    const rate = ((now.requests - last.requests) * 1000) / (now.at - last.at);
    last = now;
    screen.live(state, { rate, latency: traffic.takeWindow(), failed, stale: reads.stale });
  };
  const timer = setInterval(() => {
    printing = printing.then(print);
  }, 1_000);
  return async () => {
    clearInterval(timer);
    await printing;
  };
}

/** `flip old → new: done, epoch 2, 12 writes held, longest 34 ms, failed 0` */
export function receiptText(receipt: Receipt): string {
  const { kind, from, to, ok, epoch, writes_held, hold_ms, failed, why } = receipt;
  const held =
    hold_ms === null || writes_held === null
      ? "holds not measured"
      : `${writes_held} writes held, longest ${time(hold_ms.max)}, p99 ${time(hold_ms.p99)}, failed ${failed ?? "?"}`;
  const end = ok ? "done" : `undone (${why ?? "no reason given"})`;
  return `${kind} ${from} → ${to}: ${end}, epoch ${epoch}, ${held}`;
}

export function time(ms: number): string {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

function readsText(share: number): string {
  if (share === 0) return "old";
  return share === 1 ? "new" : `${Math.round(share * 100)} % new`;
}
