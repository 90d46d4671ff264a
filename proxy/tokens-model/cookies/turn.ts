import type { CarriedToken } from "../../causal-cookies.ts";
import type { FenceView } from "../../fences.ts";
import type { CookieBounds, CookieLimit, CookieRule, Stage } from "./rules.ts";
import { sideAt, versionOf } from "./state.ts";
import type { Sidecar, World } from "./state.ts";
import { carriedOf, NOTHING, tokenOf, viewOf, WRITTEN } from "./tokens.ts";

/** What a part of the model needs to say which steps may be taken in a world. */
export interface Turn {
  readonly world: World;
  readonly bounds: CookieBounds;
  /** Whether a rule is kept, and whether something is allowed that the promise leaves out. */
  readonly has: (rule: CookieRule) => boolean;
  readonly allows: (limit: CookieLimit) => boolean;
  /** A step that may be taken now: what it changes in a copy of the world. */
  readonly add: (label: string, change: (next: World) => void) => void;
}

/** One of the sidecars, and the stage that it routes by. */
export interface Self {
  readonly turn: Turn;
  readonly who: number;
  readonly now: Sidecar;
  readonly other: Sidecar;
  readonly stage: Stage;
}

export const sidecarOf = (world: World, who: number): Sidecar => world.sidecars[who]!;
export const stageOf = ({ bounds }: Pick<Turn, "bounds">, at: number): Stage => bounds.stages[at]!;

export function selfOf(turn: Turn, who: number): Self {
  const now = sidecarOf(turn.world, who);
  return { turn, who, now, other: sidecarOf(turn.world, 1 - who), stage: stageOf(turn, now.stage) };
}

/** What it holds fences against. */
export const viewBy = ({ now, stage }: Self): FenceView => viewOf(stage.epoch, now.passed);

/** A fence written now on what this sidecar takes for the authority; on a side that is closed it names the newer epoch. */
export function fenceNow({ turn, stage }: Self): number {
  const { world } = turn;
  const { epoch } = stageOf(turn, world.stage);
  const isOpen = sideAt(stage) === sideAt(stageOf(turn, world.stage));
  return tokenOf(epoch, isOpen ? WRITTEN + versionOf(world, sideAt(stage)) : NOTHING);
}

/** Whether this one goes on without the other: it is not seen any more, and has noticed that by itself. */
export function isWithout({ turn, other }: Self): boolean {
  const gone = turn.has("who is cut off has noticed before the others go on without it")
    ? other.connected === 0
    : other.linked === 0;
  return other.alive === 0 || gone;
}

/** `Causality.#issuing`. A while is long enough for the other to have heard twice, or to have noticed that it is cut off. */
export function issuing(self: Self): readonly boolean[] {
  const { turn, now, other, stage } = self;
  if (now.connected === 0) return [turn.has("who is cut off gives tokens")];
  if (stage.wanted) return [true];
  const mayCount = stageOf(turn, other.stage).wanted && other.unbroken < now.stage;
  if (mayCount && !isWithout(self))
    return [turn.has("tokens are given for a while after the last phase that needs them")];
  // Nobody needs them any more, and the while may be over or not.
  return now.stage > 0 ? [false, true] : [false];
}

/** The tokens at the places of a mask. */
export function carriedIn({ jar }: World, mask: number): CarriedToken[] {
  return jar.flatMap((token, place) => ((mask & (1 << place)) === 0 ? [] : [carriedOf(token)]));
}
