import { matchesPath } from "../../config/json-path.ts";
import type { JsonPath, Segment } from "../../config/json-path.ts";
import { ExactNumber, canonicalJson, isRecord } from "./json.ts";

export interface CompareRules {
  /** Places that are not compared. */
  readonly ignore: readonly JsonPath[];
  /** Lists whose order says nothing. */
  readonly unordered: readonly JsonPath[];
}

export interface Difference {
  /** Where, with `[*]` for every index: `$.items[*].name`. */
  readonly path: string;
  /** The exact place. */
  readonly segments: readonly Segment[];
  /** undefined: absent. */
  readonly old: unknown;
  readonly new: unknown;
}

/** One answer that differs everywhere says no more with more. */
const MAX_DIFFERENCES = 20;

/** Where two JSON values differ, at most one difference for each path. Lists of different length differ as a whole. */
export function differences(old: unknown, next: unknown, rules: CompareRules): Difference[] {
  const found = new Map<string, Difference>();
  compare(prepare(old, [], rules), prepare(next, [], rules), [], found);
  return [...found.values()];
}

function compare(
  old: unknown,
  next: unknown,
  segments: readonly Segment[],
  found: Map<string, Difference>,
): void {
  if (found.size >= MAX_DIFFERENCES) return;
  if (Array.isArray(old) && Array.isArray(next) && old.length === next.length) {
    for (const [i, part] of old.entries()) compare(part, next[i], [...segments, i], found);
  } else if (isRecord(old) && isRecord(next)) {
    for (const key of new Set([...Object.keys(old), ...Object.keys(next)])) {
      compare(own(old, key), own(next, key), [...segments, key], found);
    }
  } else if (!isSame(old, next)) {
    const path = pathText(segments);
    if (!found.has(path)) found.set(path, { path, segments, old, new: next });
  }
}

/** `__proto__` is a key like any other. */
function own(record: Readonly<Record<string, unknown>>, key: string): unknown {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

function isSame(old: unknown, next: unknown): boolean {
  if (old instanceof ExactNumber && next instanceof ExactNumber) return old.text === next.text;
  return old === next;
}

/** Without what is ignored; lists without order in one order. */
function prepare(value: unknown, segments: readonly Segment[], rules: CompareRules): unknown {
  if (rules.ignore.length === 0 && rules.unordered.length === 0) return value;
  const ignored = (at: readonly Segment[]) => rules.ignore.some((path) => matchesPath(path, at));
  if (Array.isArray(value)) {
    const parts = value.map((part, i) => {
      const at = [...segments, i];
      // In its place: the others keep theirs.
      return ignored(at) ? null : prepare(part, at, rules);
    });
    const unordered = rules.unordered.some((path) => matchesPath(path, segments));
    return unordered ? sorted(parts) : parts;
  }
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, part]) => ({ key, part, at: [...segments, key] }))
      .filter(({ at }) => !ignored(at))
      .map(({ key, part, at }) => [key, prepare(part, at, rules)]),
  );
}

function sorted(parts: readonly unknown[]): unknown[] {
  return parts
    .map((part) => ({ part, text: canonicalJson(part) }))
    .toSorted((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0))
    .map(({ part }) => part);
}

/** Keys that are somebody's address, or a token: they are data, and no place has a name of its own for each. */
const DATA = /@|^.{41}/s;

/** `$.items[*]['odd name']`; `['…']` for a key that is data. */
export function pathText(segments: readonly Segment[]): string {
  const parts = segments.map((segment) => {
    if (typeof segment === "number") return "[*]";
    if (DATA.test(segment)) return "['…']";
    return /^[\w-]+$/.test(segment) ? `.${segment}` : `['${segment}']`;
  });
  return `$${parts.join("")}`;
}
