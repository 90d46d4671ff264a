import type {
  ShadowExample,
  ShadowGroup,
  ShadowReport,
} from "../../store/control/shadow-report.ts";
import { shownText } from "./shown.ts";

export type Outcome =
  | "same"
  | "noise"
  | "in_flight"
  | "mismatch"
  | "unjudged"
  | "skipped"
  | "dropped";

const MAX_GROUPS = 500;
/** Heartbeats carry only so many. */
const MAX_REPORTED = 30;
const MANY = "(further routes)";

/** Counts verdicts. Every sample that was compared counts once; a mismatch counts in the group of each of its paths. */
export class ShadowTally {
  readonly #counts: Record<Outcome, number> = {
    same: 0,
    noise: 0,
    in_flight: 0,
    mismatch: 0,
    unjudged: 0,
    skipped: 0,
    dropped: 0,
  };
  readonly #groups = new Map<string, ShadowGroup>();

  count(outcome: Outcome): void {
    this.#counts[outcome] += 1;
  }

  mismatch(route: string, place: string, example: () => ShadowExample): void {
    const path = shownText(place);
    const full = this.#groups.size >= MAX_GROUPS && !this.#groups.has(`${route} ${path}`);
    const [toRoute, toPath] = full ? [MANY, MANY] : [route, path];
    const key = `${toRoute} ${toPath}`;
    const group = this.#groups.get(key);
    // The first example stays: an operator who looks twice sees the same.
    this.#groups.set(key, {
      route: toRoute,
      path: toPath,
      count: (group?.count ?? 0) + 1,
      example: group?.example ?? example(),
    });
  }

  report(noisePaths: ShadowReport["noise_paths"]): ShadowReport {
    const { same, noise, in_flight, mismatch, ...others } = this.#counts;
    const groups = [...this.#groups.values()].toSorted((a, b) => b.count - a.count);
    return {
      samples: same + noise + in_flight + mismatch,
      mismatches: mismatch,
      noise,
      in_flight,
      ...others,
      groups: groups.slice(0, MAX_REPORTED),
      noise_paths: noisePaths
        .slice(0, MAX_REPORTED)
        .map(({ route, path }) => ({ route, path: shownText(path) })),
    };
  }
}
