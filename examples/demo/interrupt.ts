import { Interrupted } from "./failure.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Aborts on the first request to stop, so that everything is ended in order; a second one calls `force`.
 * The embedded server's library would end the process by itself, in the middle of that: its handlers go.
 */
export function interruptSignal(force: () => never): AbortSignal {
  const abort = new AbortController();
  for (const name of SIGNALS) {
    process.removeAllListeners(name);
    process.on(name, () => (abort.signal.aborted ? force() : abort.abort(new Interrupted(name))));
  }
  return abort.signal;
}

/** Resolves after `ms`; rejects when `signal` aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve();
    }, ms);
    signal.addEventListener("abort", end, { once: true });
  });
}

/** Rejects when `signal` aborts. */
export async function whenAborted(signal: AbortSignal): Promise<never> {
  signal.throwIfAborted();
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}
