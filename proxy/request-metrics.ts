import { ROUTE_KINDS, SIDES } from "../config/words.ts";
import type { RouteKind, Side } from "../config/words.ts";
import { ANSWERS, LATENCY_BOUNDS_S } from "../store/control/request-report.ts";
import type { Answer, RequestReport } from "../store/control/request-report.ts";

const BOUNDS_MS = LATENCY_BOUNDS_S.map((seconds) => seconds * 1_000);

interface Series {
  readonly answers: Float64Array;
  readonly buckets: Float64Array;
  ms: number;
}

/**
 * Counts requests by side, kind, route and answer. Per request: two look-ups and three additions; whoever reports pays for the rest. There
 * are as many series as the plan has routes, however many paths clients ask for.
 */
export class RequestMetrics {
  readonly #series: Readonly<Record<Side, Readonly<Record<RouteKind, Map<string, Series>>>>> = {
    old: newSeries(),
    new: newSeries(),
  };

  /** `status` 0: there was no answer. */
  record(
    on: { readonly side: Side; readonly kind: RouteKind; readonly route: string },
    status: number,
    ms: number,
  ): void {
    const routes = this.#series[on.side][on.kind];
    let series = routes.get(on.route);
    if (series === undefined) {
      series = {
        answers: new Float64Array(ANSWERS.length),
        buckets: new Float64Array(BOUNDS_MS.length + 1),
        ms: 0,
      };
      routes.set(on.route, series);
    }
    const answer = status < 100 || status > 599 ? 0 : Math.trunc(status / 100);
    series.answers[answer] = (series.answers[answer] ?? 0) + 1;
    let bucket = 0;
    while (ms > (BOUNDS_MS[bucket] ?? Infinity)) bucket += 1;
    series.buckets[bucket] = (series.buckets[bucket] ?? 0) + 1;
    series.ms += ms;
  }

  report(): RequestReport[] {
    const reports: RequestReport[] = [];
    for (const side of SIDES) {
      for (const kind of ROUTE_KINDS) {
        for (const [route, { answers, buckets, ms }] of this.#series[side][kind]) {
          reports.push({
            side,
            kind,
            route,
            answers: answersOf(answers),
            buckets: [...buckets],
            seconds: ms / 1_000,
          });
        }
      }
    }
    return reports;
  }
}

function newSeries(): Record<RouteKind, Map<string, Series>> {
  return { read: new Map(), write: new Map(), stream: new Map() };
}

function answersOf(counts: Float64Array): Partial<Record<Answer, number>> {
  const answers: Partial<Record<Answer, number>> = {};
  for (const [index, answer] of ANSWERS.entries()) {
    const count = counts[index] ?? 0;
    if (count > 0) answers[answer] = count;
  }
  return answers;
}
