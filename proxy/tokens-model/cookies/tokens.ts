import type { CarriedToken } from "../../causal-cookies.ts";
import type { FenceView } from "../../fences.ts";
import type { Standing } from "../../route.ts";

/**
 * A token, or a fence, as a number: 0 none, else SIZE × epoch and what it covers: nothing yet, nothing at all, or a version.
 * A fence that is asked for and not written is an open token.
 */
export const OPEN = 1;
export const NOTHING = 2;
export const WRITTEN = 3;
const SIZE = 16;

/** Who takes writes in an epoch: old in the first, which is 1. */
export const sideOf = (epoch: number) => (epoch - 1) % 2;

export const tokenOf = (epoch: number, covers: number) => SIZE * epoch + covers;
export const epochOf = (token: number) => Math.floor(token / SIZE);
export const coversOf = (token: number) => token % SIZE;
export const isOpen = (token: number) => coversOf(token) === OPEN;

/** As the code has it. Fence 0 stands before every fence, so the one that covers version 0 is fence 1. */
export function carriedOf(token: number): CarriedToken {
  const known = CARRIED.get(token);
  if (known !== undefined) return known;
  const epoch = epochOf(token);
  const covers = coversOf(token);
  const fence = covers === OPEN ? undefined : BigInt(covers - NOTHING);
  const carried = { side: sideOf(epoch) === 0 ? "old" : "new", epoch, fence } as const;
  CARRIED.set(token, carried);
  return carried;
}
const CARRIED = new Map<number, CarriedToken>();

export function numberOf({ epoch, fence }: CarriedToken): number {
  return tokenOf(epoch, fence === undefined ? OPEN : NOTHING + Number(fence));
}

/** What a sidecar that routes by `epoch` and has heard of `passed` holds fences against. */
export function viewOf(epoch: number, passed: number): FenceView {
  return { epoch, passed: { epoch, fence: BigInt(passed + WRITTEN - NOTHING) } };
}

/** As `Fence.standing` has it: for one that this sidecar asked for itself. */
export function standingHere(token: number, view: FenceView): Standing {
  const { side, epoch, fence } = carriedOf(token);
  if (epoch < view.epoch) return "passed";
  if (fence === undefined) return "unpassed";
  if (epoch > view.epoch) return { newer: side };
  return fence <= view.passed.fence ? "passed" : "unpassed";
}
