import { readFileSync } from "node:fs";
import { LineCounter, parseDocument, type YAMLError } from "yaml";
import { messageOf, PlanError } from "./errors.ts";
import { redact } from "./describe.ts";

/** The plan file as plain data. Syntax errors and duplicate keys are PlanErrors with the line and column. */
export function readYaml(file: string): unknown {
  const text = readText(file);
  const lines = new LineCounter();
  // prettyErrors would quote source lines, and a source line may hold a password.
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
  });
  const problems = [...document.errors, ...document.warnings];
  if (problems.length > 0) {
    throw new PlanError(
      file,
      problems.map((problem) => ({
        path: place(problem, lines),
        message: describeProblem(problem, text),
      })),
    );
  }
  try {
    return document.toJS() as unknown;
  } catch (error) {
    throw new PlanError(file, [{ path: "", message: redact(messageOf(error)) }]);
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new PlanError(
      file,
      [{ path: "", message: `cannot be read: ${messageOf(error)}` }],
      "Name the plan file with --plan FILE.",
    );
  }
}

function place(problem: YAMLError, lines: LineCounter): string {
  const { line, col } = lines.linePos(problem.pos[0]);
  return `line ${line}, column ${col}`;
}

function describeProblem(problem: YAMLError, text: string): string {
  if (problem.code !== "DUPLICATE_KEY") return redact(problem.message);
  const key = /^["']?([\w-]+)/.exec(text.slice(problem.pos[0]))?.[1];
  return `${key ?? "a key"} stands twice in the same map`;
}
