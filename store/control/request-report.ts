import type { RouteKind, Side } from "../../config/words.ts";

/** Upper bounds of the latency histogram, seconds; the last bucket has none. */
export const LATENCY_BOUNDS_S = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
] as const;

/** `none`: the app gave no answer, or broke it off before its head. */
export const ANSWERS = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"] as const;
export type Answer = (typeof ANSWERS)[number];

/** What a sidecar has counted of one route on one side since it started. */
export interface RequestReport {
  readonly side: Side;
  readonly kind: RouteKind;
  /** Method and path of the plan's route, or `other`. */
  readonly route: string;
  readonly answers: Readonly<Partial<Record<Answer, number>>>;
  /** How many took up to each of the bounds and more than the one before; the last: more than all of them. */
  readonly buckets: readonly number[];
  readonly seconds: number;
}
