import { METHODS } from "node:http";
import { z } from "zod";
import { parseJsonPath } from "./json-path.ts";
import type { JsonPath } from "./json-path.ts";
import {
  parseDelta,
  parseDuration,
  parseFactor,
  parseListen,
  parseShare,
  parseSize,
  show,
  UnitError,
} from "./units.ts";
import { isPhase, PHASES } from "./words.ts";

/** The kinds of values the plan file is made of. Each says what it found and what it expected. */

/**
 * A map with exactly these keys. The issue zod makes of an unknown key does not say which keys are known, so its
 * message carries them; plan-issues.ts unpacks it.
 */
export function section<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys" ? JSON.stringify(Object.keys(shape)) : undefined,
  });
}

/** A value read by one of the parsers of units.ts. */
function parsed<T>(what: string, parse: (value: unknown) => T) {
  return z.union([z.string(), z.number()], { error: what }).transform((value, ctx): T => {
    try {
      return parse(value);
    } catch (error) {
      if (!(error instanceof UnitError)) throw error;
      ctx.addIssue({ code: "custom", message: error.message });
      return z.NEVER;
    }
  });
}

export function duration(limits: { min?: string; max?: string } = {}) {
  const { min = "1ms", max = "365d" } = limits;
  return parsed("a time such as 500ms, 5s or 15m", (value) => {
    const ms = parseDuration(value);
    if (ms < parseDuration(min) || ms > parseDuration(max))
      throw new UnitError(value, `a time from ${min} to ${max}`);
    return ms;
  });
}

export const share = () => parsed("a share such as 10% or 0.1", parseShare);
export const size = () => parsed("a size such as 500MB or 100GB", parseSize);
export const factor = () => parsed("a factor such as 1.2x", parseFactor);
export const delta = () => parsed("a difference such as +0.1%", parseDelta);
export const listen = () => parsed("an address such as 127.0.0.1:8080", parseListen);

/** A whole number; digits in a string too, because `${VAR}` always gives a string. */
export function count(min: number, max: number) {
  return z.union([z.int(), z.string().regex(/^\d+$/)]).transform((value, ctx): number => {
    const number = Number(value);
    if (number >= min && number <= max) return number;
    ctx.addIssue({
      code: "custom",
      message: `found ${show(value)}, expected a whole number from ${min} to ${max}`,
    });
    return z.NEVER;
  });
}

export function flag() {
  return z
    .union([z.boolean(), z.enum(["true", "false"])], { error: "true or false" })
    .transform((value) => value === true || value === "true");
}

/** Text that `test` accepts; `expected` ends the message when it does not. */
export function text(
  expected: string,
  test: (value: string) => boolean = (value) => value.trim() !== "",
) {
  return z.string().superRefine((value, ctx) => {
    if (!test(value))
      ctx.addIssue({ code: "custom", message: `found ${show(value)}, expected ${expected}` });
  });
}

/**
 * The name of a schema, table or column. Quoting makes every character legal but NUL; what is longer than 63 bytes
 * Postgres would cut off silently, and then mean another object.
 */
export function identifier(what: "schema" | "table" | "column") {
  return text(`the name of a ${what}: not empty, no NUL, at most 63 bytes`, (value) => {
    return value !== "" && !value.includes("\0") && Buffer.byteLength(value) <= 63;
  });
}

/** Gives the parsed path. */
export function jsonPath() {
  return z.string().transform((value, ctx): JsonPath => {
    const path = parseJsonPath(value);
    if (path !== undefined) return path;
    const message = `found ${show(value)}, expected a JSON path such as $.a.b, $..email or $.items[*].id`;
    ctx.addIssue({ code: "custom", message });
    return z.NEVER;
  });
}

export const sql = () => text("SQL", (value) => value.trim() !== "" && !value.includes("\0"));

/** SQL; a plain number or a boolean is taken as the SQL literal. */
export function sqlValue() {
  return z
    .union([z.string(), z.number(), z.boolean()], { error: "SQL" })
    .transform((value, ctx): string => {
      const literal = String(value);
      if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
        ctx.addIssue({
          code: "custom",
          message: `found a number beyond 2^53, expected it in quotes, so that no digit is lost`,
        });
      } else if (literal.trim() === "" || literal.includes("\0")) {
        ctx.addIssue({ code: "custom", message: `found ${show(value)}, expected SQL` });
      }
      return literal;
    });
}

export const phaseName = () =>
  text(
    `a phase after off: ${PHASES.slice(1).join(", ")}`,
    (value) => isPhase(value) && value !== "off",
  );

/** `GET /path` or `* /path`. */
export function routeMatch() {
  return z.string().transform((value, ctx): { method: string; path: string } => {
    const match = /^(\S+)\s+(\/\S*|\*)$/.exec(value.trim());
    const method = match?.[1]?.toUpperCase() ?? "";
    if (match !== null && (method === "*" || METHODS.includes(method)))
      return { method, path: match[2] ?? "" };
    ctx.addIssue({
      code: "custom",
      message: `found ${show(value)}, expected "METHOD /path" such as "POST /search", or "* /path" for every method`,
    });
    return z.NEVER;
  });
}

/** Read when the plan is, or later; seen from the plan's folder. */
export const file = () => text("the path of a file, relative to the plan's folder");
