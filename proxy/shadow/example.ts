import { matchesPath } from "../../config/json-path.ts";
import type { JsonPath, Segment } from "../../config/json-path.ts";
import type { ShadowExample } from "../../store/control/shadow-report.ts";
import type { Difference } from "./compare.ts";
import { ExactNumber, isRecord } from "./json.ts";
import { shownText } from "./shown.ts";

const REDACTED = "[redacted]";
/** Redacted whatever the plan says. */
const SECRET = /passw|secret|token|authorization|cookie|api_?key/i;
const MAX_SEGMENTS = 8;

/** One mismatch as an operator may see it. */
export function exampleOf(
  request: { readonly method: string; readonly url: string },
  statuses: ShadowExample["statuses"],
  { segments, old, new: next }: Difference,
  redact: readonly JsonPath[],
): ShadowExample {
  const shown = (value: unknown) =>
    shownText(JSON.stringify(hide(value, segments, redact)) ?? "absent");
  return {
    request: shownText(`${request.method} ${withoutValues(request.url)}`),
    statuses,
    old: shown(old),
    new: shown(next),
  };
}

function hide(value: unknown, segments: readonly Segment[], redact: readonly JsonPath[]): unknown {
  // Below something redacted everything is.
  for (let n = 1; n <= segments.length; n += 1)
    if (isHidden(segments.slice(0, n), redact)) return value === undefined ? undefined : REDACTED;
  return hideWithin(value, segments, redact);
}

function hideWithin(value: unknown, at: readonly Segment[], redact: readonly JsonPath[]): unknown {
  if (value instanceof ExactNumber) return value.text;
  const part = (one: unknown, segment: Segment) =>
    isHidden([...at, segment], redact) ? REDACTED : hideWithin(one, [...at, segment], redact);
  if (Array.isArray(value)) return value.map(part);
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, part(one, key)]));
}

function isHidden(segments: readonly Segment[], redact: readonly JsonPath[]): boolean {
  const last = segments.at(-1);
  if (typeof last === "string" && SECRET.test(last)) return true;
  return redact.some((path) => matchesPath(path, segments));
}

/** The path as it is, but for addresses and secrets in it; of the query only the names. */
function withoutValues(url: string): string {
  const { path, query } = partsOf(url);
  const parts = path.split("/");
  const shown = parts.map((part, i) => (isPrivate(part, parts[i - 1]) ? ":id" : part)).join("/");
  const names = query.split("&").map((pair) => pair.split("=")[0]);
  return query === "" ? shown : `${shown}?${names.join("&")}`;
}

/** `GET /users/:id/orders`: ids replaced, so that mismatches of one route come together. */
export function routeOf(method: string, url: string): string {
  const segments = partsOf(url).path.split("/").slice(1);
  const named = segments
    .slice(0, MAX_SEGMENTS)
    .map((part, i) => (isId(part) || isPrivate(part, segments[i - 1]) ? ":id" : part));
  const more = segments.length > MAX_SEGMENTS ? "/…" : "";
  return shownText(`${method} /${named.join("/")}${more}`);
}

/** Numbers, UUIDs, hashes, dates: whatever holds a digit and is long, or is nothing but digits. */
function isId(part: string): boolean {
  return /^\d+$/.test(part) || (part.length >= 8 && /\d/.test(part));
}

/** Addresses; what is too long for a name or a UUID, as tokens are; and what comes after the name of a secret: `/reset-password/…`. */
function isPrivate(part: string, before = ""): boolean {
  return part !== "" && (/@|%40/i.test(part) || part.length > 40 || SECRET.test(before));
}

function partsOf(url: string): { readonly path: string; readonly query: string } {
  const [path = "", query = ""] = url.replace(/^[a-z]+:\/\/[^/]*/i, "").split(/\?(.*)/s);
  return { path, query };
}
