import { existsSync } from "node:fs";
import { basename } from "node:path";
import { setImmediate } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { messageOf, type PlanIssue } from "../../config/errors.ts";
import type { Transform } from "../../config/transform-types.ts";
import type { ReaderTransform } from "./mapping.ts";
import type { TextRow } from "./statement.ts";

/** A module of the plan, loaded. */
export interface TransformModule {
  readonly file: string;
  readonly run: Transform;
  /** Target columns that it makes; undefined: all that can be written. */
  readonly columns: readonly string[] | undefined;
}

const EXPECTED =
  "expected a TypeScript or JavaScript module with `export const transform = (row) => rows`";

/** Loads a module, once per process. What is wrong with it goes to `issues`, and undefined comes back. */
export async function loadTransform(
  file: string,
  path: string,
  issues: PlanIssue[],
): Promise<TransformModule | undefined> {
  const refuse = (message: string) => {
    issues.push({ path, message });
    return undefined;
  };
  if (!existsSync(file)) return refuse(`found no file ${file}, ${EXPECTED}`);
  let exported: Record<string, unknown>;
  try {
    exported = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (error) {
    return refuse(`${file} cannot be loaded: ${messageOf(error)}`);
  }
  const { transform, columns } = exported;
  if (typeof transform !== "function")
    return refuse(
      `${file} exports ${Object.keys(exported).join(", ") || "nothing"}, and no function \`transform\`; ${EXPECTED}`,
    );
  if (/^Async|Generator/.test(transform.constructor.name))
    return refuse(
      `${file} exports an async function or a generator, expected one that returns its rows: it may look at nothing but the row`,
    );
  if (columns !== undefined && !isNames(columns))
    return refuse(
      `${file} exports columns that are not a list of names; expected the target columns that it makes: export const columns = ["a", "b"]`,
    );
  return { file, run: transform as Transform, columns };
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}

/** What a module made of a source row: texts in the order of `made`, or why there are none. */
export type Outcome =
  | { readonly kind: "rows"; readonly rows: readonly TextRow[] }
  | { readonly kind: "rejected"; readonly reason: string }
  /** It threw, or returned something else. */
  | { readonly kind: "failed"; readonly reason: string };

/** The module fails on a row, so nothing is known of what should be there. */
export class TransformFailed extends Error {}

/** Calls the module for a row of its reader. Never throws. */
export function transformRow(
  { file, made, run }: ReaderTransform,
  names: readonly string[],
  row: TextRow,
): Outcome {
  const given = Object.fromEntries(names.map((name, i) => [name, row[i] ?? null]));
  try {
    const answer: unknown = run(given);
    if (isRejection(answer)) return { kind: "rejected", reason: printable(answer.reject) };
    if (!Array.isArray(answer))
      throw new WrongAnswer(
        `${shownType(answer)}, expected a list of rows or { reject: "a reason" }`,
      );
    return { kind: "rows", rows: answer.map((one) => textsOf(one, made)) };
  } catch (error) {
    const what = error instanceof WrongAnswer ? "returned" : "threw:";
    return {
      kind: "failed",
      reason: printable(`the transform ${basename(file)} ${what} ${messageOf(error)}`),
    };
  }
}

/** Something that is not what its type says: modules need not be type-checked. */
class WrongAnswer extends Error {}

function isRejection(answer: unknown): answer is { readonly reject: string } {
  return (
    typeof answer === "object" &&
    answer !== null &&
    "reject" in answer &&
    typeof answer.reject === "string" &&
    !Array.isArray(answer)
  );
}

function textsOf(row: unknown, made: readonly string[]): TextRow {
  if (typeof row !== "object" || row === null || Array.isArray(row))
    throw new WrongAnswer(`${shownType(row)} as a row, expected an object of columns`);
  const values = new Map<string, unknown>(Object.entries(row));
  const strange = [...values.keys()].filter((name) => !made.includes(name));
  if (strange.length > 0)
    throw new WrongAnswer(
      `a row with ${strange.join(", ")}, which it does not make; expected ${made.join(", ")}`,
    );
  return made.map((name) => textOf(name, values.get(name)));
}

function textOf(name: string, value: unknown): string | null {
  if (value === null) return null;
  if (typeof value !== "string")
    throw new WrongAnswer(
      `a row whose ${name} is ${shownType(value)}, expected text as Postgres writes it, or null`,
    );
  // Neither can be stored, and the second would silently become another character on its way.
  if (value.includes("\0") || !value.isWellFormed())
    throw new WrongAnswer(
      `a row whose ${name} holds ${value.includes("\0") ? "a zero character" : "half a character (a lone surrogate)"}, which Postgres cannot store`,
    );
  return value;
}

function shownType(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  return value instanceof Promise ? "a promise" : `a value of type ${typeof value}`;
}

/** Enough of a reason to find its cause. */
const MOST_CHARACTERS = 1_000;

function printable(reason: string): string {
  return reason.slice(0, MOST_CHARACTERS).replaceAll("\0", "").toWellFormed() || "no reason given";
}

/** ms after which others get a turn: a sync's own timers have to run. */
const TURN_MS = 20;

const outcomes = new WeakMap<TextRow, Outcome>();

/** Calls the module for each row, beforehand: `outcomeOf` then knows. */
export async function transformRows(
  transform: ReaderTransform,
  names: readonly string[],
  rows: readonly TextRow[],
): Promise<void> {
  let turn = performance.now();
  for (const row of rows) {
    outcomes.set(row, transformRow(transform, names, row));
    if (performance.now() - turn < TURN_MS) continue;
    await setImmediate();
    turn = performance.now();
  }
}

/** What was made of a row that `transformRows` was given. */
export function outcomeOf(row: TextRow): Outcome {
  const outcome = outcomes.get(row);
  if (outcome === undefined) throw new Error("a row was not given to its transform");
  return outcome;
}
