import type { PlanIssue } from "./errors.ts";
import { pathOf, type PathPart } from "./plan-issues.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

const REFERENCE = /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g;

/**
 * Replaces `${VAR}` and `${VAR:-default}` in every string of a parsed plan. As in a shell, the default also stands in
 * for an empty variable, while a bare `${VAR}` accepts one.
 */
export function expandEnvironment(
  value: unknown,
  env: Environment,
  issues: PlanIssue[],
  path: readonly PathPart[] = [],
): unknown {
  if (typeof value === "string") return expandText(value, env, issues, path);
  if (Array.isArray(value))
    return value.map((item, i) => expandEnvironment(item, env, issues, [...path, i]));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      expandEnvironment(item, env, issues, [...path, key]),
    ]),
  );
}

function expandText(
  text: string,
  env: Environment,
  issues: PlanIssue[],
  path: readonly PathPart[],
): string {
  return text.replace(REFERENCE, (_, name: string, fallback: string | undefined) => {
    const found = env[name];
    if (found !== undefined && (found !== "" || fallback === undefined)) return found;
    if (fallback !== undefined) return fallback;
    const message = `the environment variable ${name} is not set; set it, or write \${${name}:-default}`;
    issues.push({ path: pathOf(path), message });
    return "";
  });
}

/** The environment of a child process: ours, and what only it is told (a password must not stand on a command line). */
export function childEnvironment(told: Environment): Environment {
  return { ...process.env, ...told };
}
