import type { Plan } from "../../config/plan-types.ts";

let feed: Plan["feed"] = "trigger";

/** The feed that the plans of this test file have, where a test does not say. */
export function testedFeed(): Plan["feed"] {
  return feed;
}

/** Call before importing a file of tests, to run them all on another feed. */
export function testFeed(tested: Plan["feed"]): void {
  feed = tested;
}
