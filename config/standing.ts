import type { Phase } from "./words.ts";

/** Where the migration stood when this process last heard of it; a process serves one plan. For logs, never for decisions. */
export interface Standing {
  readonly phase: Phase;
  readonly epoch: number;
}

let last: Standing | undefined;
const listeners = new Set<(standing: Standing) => void>();

/** undefined: not heard of yet. */
export function lastStanding(): Standing | undefined {
  return last;
}

export function noteStanding({ phase, epoch }: Standing): void {
  if (last?.phase === phase && last.epoch === epoch) return;
  last = { phase, epoch };
  for (const listener of listeners) listener(last);
}

export function onStanding(listener: (standing: Standing) => void): void {
  listeners.add(listener);
  if (last !== undefined) listener(last);
}
