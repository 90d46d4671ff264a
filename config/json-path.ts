/** JSONPath as far as plans need it: `$.a.b`, `$['a b']`, `[0]`, `[*]`, `.*`, and `..` for any depth. */

export type Segment = string | number;

type Step =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "index"; readonly index: number }
  | { readonly kind: "any" }
  | { readonly kind: "descend" };

export type JsonPath = readonly Step[];

const STEP =
  /(\.\.|\.)?(?:\[(?:(?<any>\*)|(?<index>\d+)|'(?<single>[^']*)'|"(?<double>[^"]*)")\]|(?<star>\*)|(?<name>[^.[\]*\s'"]+))/y;

/** undefined: not such a path. */
export function parseJsonPath(text: string): JsonPath | undefined {
  if (!text.startsWith("$") || text === "$") return undefined;
  const steps: Step[] = [];
  let at = 1;
  while (at < text.length) {
    STEP.lastIndex = at;
    const match = STEP.exec(text);
    if (match === null) return undefined;
    const [whole, dots] = match;
    const bracket = whole.endsWith("]");
    // `.[0]` and `$name` are mistakes.
    if (bracket ? dots === "." : dots === undefined) return undefined;
    if (dots === "..") steps.push({ kind: "descend" });
    steps.push(stepOf(match.groups ?? {}));
    at += whole.length;
  }
  return steps;
}

function stepOf(groups: Readonly<Record<string, string | undefined>>): Step {
  const { any, star, index, single, double, name } = groups;
  if (any !== undefined || star !== undefined) return { kind: "any" };
  if (index !== undefined) return { kind: "index", index: Number(index) };
  return { kind: "name", name: name ?? single ?? double ?? "" };
}

/** Whether the path names exactly the place that the segments lead to. */
export function matchesPath(path: JsonPath, segments: readonly Segment[]): boolean {
  return matchesFrom(path, 0, segments, 0);
}

function matchesFrom(
  path: JsonPath,
  step: number,
  segments: readonly Segment[],
  at: number,
): boolean {
  const now = path[step];
  if (now === undefined) return at === segments.length;
  if (now.kind === "descend") {
    for (let from = at; from < segments.length; from += 1) {
      if (matchesFrom(path, step + 1, segments, from)) return true;
    }
    return false;
  }
  const segment = segments[at];
  if (segment === undefined || !matchesStep(now, segment)) return false;
  return matchesFrom(path, step + 1, segments, at + 1);
}

function matchesStep(step: Exclude<Step, { kind: "descend" }>, segment: Segment): boolean {
  if (step.kind === "any") return true;
  return step.kind === "name" ? step.name === segment : step.index === segment;
}
