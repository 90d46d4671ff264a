import type { z } from "zod";
import type { PlanIssue } from "./errors.ts";
import { redact } from "./describe.ts";
import { show } from "./units.ts";

export type PathPart = PropertyKey;

/** Values at these paths may be secrets: a message never shows them. */
const SECRET =
  /^(old\.database|new\.database|control\.database|redis|notify\[\d+\]|hooks\..*\.http|operate\.tokens)$/;

/** `forward.tags[1].set.id`; a key that is no plain word stands in quotes. */
export function pathOf(parts: readonly PathPart[]): string {
  return parts.reduce<string>((path, part) => {
    if (typeof part === "number") return `${path}[${part}]`;
    const key = String(part);
    const word = /^[\w-]+$/.test(key) ? key : JSON.stringify(key);
    return path === "" ? word : `${path}.${word}`;
  }, "");
}

/** zod's issues in our words: found, expected, and for an unknown key the nearest known one. */
export function planIssues(
  issues: readonly z.core.$ZodIssue[],
  data: unknown,
  base: readonly PathPart[] = [],
): PlanIssue[] {
  return issues.flatMap((issue) => {
    const path = [...base, ...issue.path];
    switch (issue.code) {
      case "unrecognized_keys":
        return issue.keys.map((key) => ({
          path: pathOf([...path, key]),
          message: unknownKey(key, issue.message),
        }));
      case "invalid_key":
        return issue.issues.map((inner) => ({
          path: pathOf(path),
          message: `as a key: ${inner.message}`,
        }));
      case "invalid_union":
        return unionIssues(issue, data, path);
      case "invalid_type":
        return [
          {
            path: pathOf(path),
            message: expected(path, data, TYPES[issue.expected] ?? issue.expected),
          },
        ];
      case "invalid_value":
        return [
          {
            path: pathOf(path),
            message: expected(path, data, issue.values.map(String).join(" or ")),
          },
        ];
      case "invalid_format":
        return [{ path: pathOf(path), message: expected(path, data, "a whole number") }];
      case "invalid_element":
        return planIssues(issue.issues, data, path);
      case "custom":
      case "too_big":
      case "too_small":
      case "not_multiple_of":
        return [{ path: pathOf(path), message: redact(issue.message) }];
    }
  });
}

const TYPES: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  object: "a map",
  record: "a map",
  array: "a list",
};

/** If one alternative fits the value's kind, its own issues say more than "none fits". */
function unionIssues(
  issue: z.core.$ZodIssueInvalidUnion,
  data: unknown,
  path: readonly PathPart[],
): PlanIssue[] {
  const close = issue.errors.filter(
    (errors) => !errors.some((error) => error.path.length === 0 && isOtherKind(error)),
  );
  const [only] = close;
  if (close.length === 1 && only !== undefined) return planIssues(only, data, path);
  const kinds = issue.errors
    .map((errors) => wanted(errors[0]))
    .filter((kind) => kind !== undefined);
  const own = issue.message === "Invalid input" ? [...new Set(kinds)].join(" or ") : issue.message;
  return [{ path: pathOf(path), message: expected(path, data, own) }];
}

function isOtherKind(issue: z.core.$ZodIssue): boolean {
  return (
    issue.code === "invalid_type" ||
    issue.code === "invalid_value" ||
    issue.code === "invalid_format"
  );
}

function wanted(issue: z.core.$ZodIssue | undefined): string | undefined {
  if (issue?.code === "invalid_type") return TYPES[issue.expected];
  if (issue?.code === "invalid_value") return issue.values.map(String).join(" or ");
  return undefined;
}

function expected(path: readonly PathPart[], data: unknown, what: string): string {
  const value = path.reduce<unknown>(
    (at, part) => (at === null || typeof at !== "object" ? undefined : Reflect.get(at, part)),
    data,
  );
  const secret = SECRET.test(pathOf(path)) && typeof value !== "object" && value !== undefined;
  return `found ${secret ? "something else" : redact(show(value))}, expected ${what}`;
}

function unknownKey(key: string, knownAsJson: string): string {
  const known = JSON.parse(knownAsJson) as string[];
  const near = nearest(key, known);
  return near === undefined
    ? `unknown key; known here: ${known.join(", ")}`
    : `unknown key, did you mean ${near}?`;
}

/** The candidate that `word` is most likely a misspelling of, or undefined if none is close. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const ranked = candidates
    .map((candidate) => ({ candidate, distance: distance(fold(word), fold(candidate)) }))
    .toSorted((a, b) => a.distance - b.distance);
  const best = ranked[0];
  if (best === undefined || best.distance > Math.max(1, Math.floor(word.length / 3)))
    return undefined;
  return best.candidate;
}

function fold(word: string): string {
  return word.toLowerCase().replaceAll(/[-_]/g, "");
}

/** Edits (insert, delete, replace, swap two neighbours) from `a` to `b`. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = swapped ? (before[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY;
      next.push(Math.min(replace, swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    before = row;
    row = next;
  }
  return row[b.length] ?? 0;
}
