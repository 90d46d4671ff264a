import { endSync } from "./mirror.ts";
import {
  ACCIDENTS,
  ARMED,
  AT,
  authorityAt,
  base,
  CONTROLLER,
  CONTROLLER_SIZE,
  EPOCH,
  FLUSHED_EPOCH,
  FLUSHED_GUARD,
  GUARD,
  of,
  OWNER,
  place,
  SIDES,
  syncsTo,
  writesIn,
} from "./state.ts";
import type { Turn } from "./turn.ts";

/** Processes that stop, sessions that end, servers that crash and forget what was not flushed, triggers that are disabled. */
export function accidents({ state, bounds, has, add }: Turn): void {
  // A time-out of the server's, or a connection that broke, may happen to anybody at any time.
  for (const side of SIDES)
    if (of(state, side, OWNER) !== 0 && has("transactions before the decision time out"))
      add(`the transaction on ${side} is ended`, (next) => (next[base(side) + OWNER] = 0));
  if (state[ACCIDENTS]! >= bounds.accidents) return;
  const accident = (label: string, change: (next: number[]) => void) =>
    add(label, (next) => {
      change(next);
      next[ACCIDENTS]! += 1;
    });
  for (const me of [0, 1]) {
    const c = CONTROLLER + me * CONTROLLER_SIZE;
    if (state[c + AT] === place("idle") || state[c + AT] === place("gone")) continue;
    // Its server does not notice. That one wakes after a while is no accident: it is a step that is taken late.
    const other = CONTROLLER + (1 - me) * CONTROLLER_SIZE;
    if (state[other + AT] !== place("gone"))
      accident(`${me} freezes for ever`, (next) => (next[c + AT] = place("gone")));
    accident(`${me} dies, another is started`, (next) => {
      for (const side of SIDES) if (of(next, side, OWNER) === me + 1) next[base(side) + OWNER] = 0;
      next.fill(0, c, c + CONTROLLER_SIZE);
    });
  }
  for (const side of SIDES) {
    const forgets =
      of(state, side, GUARD) !== of(state, side, FLUSHED_GUARD) ||
      of(state, side, EPOCH) !== of(state, side, FLUSHED_EPOCH);
    const isWrittenTo = [2, 3].some((phase) => writesIn(state, side, phase));
    if (forgets && !isWrittenTo)
      accident(`the server of ${side} crashes`, (next) => {
        next[base(side) + GUARD] = of(state, side, FLUSHED_GUARD);
        next[base(side) + EPOCH] = of(state, side, FLUSHED_EPOCH);
        next[base(side) + OWNER] = 0;
        if (syncsTo(state, side)) endSync(next);
      });
    const isOpen = authorityAt(of(state, side, EPOCH)) === side && of(state, side, GUARD) === 0;
    // Between the check and the decision, some milliseconds, nothing would notice it.
    if (of(state, side, ARMED) === 1 && isOpen && of(state, side, OWNER) === 0)
      accident(`a trigger of ${side} is disabled behind our back`, (next) => {
        next[base(side) + ARMED] = 0;
      });
  }
}
