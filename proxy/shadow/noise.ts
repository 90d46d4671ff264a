import type { Difference } from "./compare.ts";

/** Old asked twice differs here so often that the place says nothing. */
const MIN_PAIRS = 3;
const NOISY_SHARE = 0.5;
const MAX_ROUTES = 500;
const MAX_PATHS = 100;

interface RouteNoise {
  /** How often old was asked twice. */
  pairs: number;
  /** Path → how often the two answers differed there. */
  readonly paths: Map<string, number>;
}

/**
 * Where old differs from itself, by route. A path counts once it differed in half of the pairs: a clock or a random value does,
 * while a row that somebody wrote between two answers does now and then, and must not hide what new gets wrong there.
 */
export class NoiseBook {
  readonly #routes = new Map<string, RouteNoise>();

  /** Two answers of old to one request: where they differed. */
  observe(route: string, differing: readonly string[]): void {
    const noise = this.#routes.get(route) ?? { pairs: 0, paths: new Map() };
    if (!this.#routes.has(route) && this.#routes.size >= MAX_ROUTES) return;
    this.#routes.set(route, noise);
    noise.pairs += 1;
    for (const path of differing) {
      const count = noise.paths.get(path);
      if (count !== undefined || noise.paths.size < MAX_PATHS)
        noise.paths.set(path, (count ?? 0) + 1);
    }
  }

  /** Learned paths of a route. */
  of(route: string): string[] {
    const { pairs, paths } = this.#routes.get(route) ?? { pairs: 0, paths: new Map() };
    return [...paths]
      .filter(([, count]) => count >= MIN_PAIRS && count >= pairs * NOISY_SHARE)
      .map(([path]) => path);
  }

  all(): { readonly route: string; readonly path: string }[] {
    return [...this.#routes.keys()].flatMap((route) =>
      this.of(route).map((path) => ({ route, path })),
    );
  }

  clear(): void {
    this.#routes.clear();
  }
}

export type Judgement =
  | { readonly kind: "same" | "noise" | "unsettled" }
  | { readonly kind: "mismatch"; readonly differences: readonly Difference[] };

/**
 * What is left of the differences between old and new. `between`: paths where old, asked before and after new, differed from
 * itself; such a place was written just now, or is noise nobody learned yet: look again.
 */
export function judge(
  found: readonly Difference[],
  between: readonly string[],
  learned: readonly string[],
): Judgement {
  if (found.length === 0) return { kind: "same" };
  const unlearned = found.filter(({ path }) => !isUnder(path, learned));
  if (unlearned.length === 0) return { kind: "noise" };
  const left = unlearned.filter(({ path }) => !isUnder(path, between));
  return left.length === 0 ? { kind: "unsettled" } : { kind: "mismatch", differences: left };
}

function isUnder(path: string, places: readonly string[]): boolean {
  return places.some(
    (place) => path === place || path.startsWith(`${place}.`) || path.startsWith(`${place}[`),
  );
}
