import { EXIT } from "../config/errors.ts";

/** How long a process may take to stop before it gives up. A child gets less, so that its supervisor sees it end. */
export const STOP_DEADLINE_MS = 15_000;
export const CHILD_STOP_DEADLINE_MS = 12_000;

/** Whether this process was started by `crossfade up`, which then decides when it stops. */
export function isSupervised(): boolean {
  return process.send !== undefined;
}

/**
 * Aborts on the first request to stop; a second one, or the deadline, ends the process at once with exit code 1.
 * A supervised process stops when its supervisor is gone, and leaves Ctrl-C to it: a terminal sends that to both.
 */
export function stopSignal(onForced: () => void): AbortSignal {
  const abort = new AbortController();
  const force = () => {
    onForced();
    process.exit(EXIT.failed);
  };
  const stop = () => {
    if (abort.signal.aborted) return force();
    abort.abort();
    setTimeout(force, isSupervised() ? CHILD_STOP_DEADLINE_MS : STOP_DEADLINE_MS).unref();
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", isSupervised() ? () => {} : stop);
  process.on("SIGHUP", isSupervised() ? () => {} : stop);
  // Not counted as a second request: a supervisor that stops sends SIGTERM and then closes the channel.
  if (isSupervised()) process.on("disconnect", () => !abort.signal.aborted && stop());
  return abort.signal;
}

/** Resolves when `signal` aborts. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true }),
  );
}
