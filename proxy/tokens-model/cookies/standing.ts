import { hasPassed, standingOf } from "../../causal-cookies.ts";
import type { CarriedToken } from "../../causal-cookies.ts";
import type { Standing } from "../../route.ts";
import { sideAt } from "./state.ts";
import { standingHere } from "./tokens.ts";
import { viewBy } from "./turn.ts";
import type { Self } from "./turn.ts";

/** Where a client stands by what it carries: as `standingOf` has it, but for the rules that are left out. */
export function standingBy(self: Self, carried: readonly CarriedToken[]): Standing {
  const { has } = self.turn;
  const view = viewBy(self);
  if (carried.length === 0 && !has("no token is no promise")) return "passed";
  const counted = has("a newer epoch's token is followed")
    ? carried
    : carried.filter(({ epoch }) => epoch <= view.epoch);
  const standing = standingOf(counted, view);
  if (standing !== "unpassed" || carried.length === 0) return standing;
  const binding = counted.filter((token) => {
    if (token.fence !== undefined) return !hasPassed(token, view);
    const isOlder = token.epoch < view.epoch;
    return has("an open token binds") && (!isOlder || has("an open token of an older epoch binds"));
  });
  const isBound = has("every token that is carried binds")
    ? binding.length > 0
    : binding.length === carried.length;
  return isBound ? "unpassed" : "passed";
}

/** As `factsOf` and `routeRead` have it: who answers a read of a client that stands so by what it carries. */
export function sideFor(self: Self, travelled: Standing): number {
  const { now, stage } = self;
  if (typeof travelled === "object") return travelled.newer === "old" ? 0 : 1;
  const authority = sideAt(stage);
  if (!stage.wanted || travelled === "unpassed") return authority;
  const here = now.bound === 0 ? "passed" : standingHere(now.bound, viewBy(self));
  if (now.gate > 0 && typeof here === "object") return here.newer === "old" ? 0 : 1;
  return now.gate === 2 && here === "passed" ? 1 - authority : authority;
}
