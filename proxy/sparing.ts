import type { ExchangeContext } from "./exchange-context.ts";
import type { Decision } from "./route.ts";

type SparingContext = Pick<ExchangeContext, "breaker" | "state">;

/** Leaves a follower alone that does not answer. A request that tries it again may be answered by the authority. */
export function spare(decision: Decision, context: SparingContext): Decision {
  if (!isOptional(decision, context)) return decision;
  const answer = context.breaker.ask(performance.now());
  if (answer === "go") return decision;
  if (answer === "probe") return { ...decision, fallback: true };
  return { side: context.state().authority, hold: false, reason: "resting", fallback: false };
}

/** What the answer, or its absence, says of a follower. */
export function reportAlive(
  decision: Decision | undefined,
  alive: boolean,
  context: SparingContext,
): void {
  if (decision === undefined || !isOptional(decision, context)) return;
  if (alive) context.breaker.answered();
  else context.breaker.failed(performance.now());
}

/** The phase sent a read to the follower: the authority could answer it as well. */
function isOptional({ side, reason }: Decision, { state }: SparingContext): boolean {
  return reason === "phase" && side !== state().authority;
}
