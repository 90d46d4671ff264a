import type { ListenAddress } from "./plan-types.ts";

/** A value with a unit that does not hold; the message says what was found and what is expected. */
export class UnitError extends Error {
  constructor(found: unknown, expected: string) {
    super(`found ${show(found)}, expected ${expected}`);
    this.name = "UnitError";
  }
}

/** A value of the plan as a message shows it: short, on one line. */
export function show(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "object") return Object.keys(value).length === 0 ? "an empty map" : "a map";
  if (typeof value !== "string") return JSON.stringify(value) ?? typeof value;
  return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
}

const MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** `500ms`, `5s`, `15m`, `2h`, `1d` → milliseconds. A bare number is refused: it says nothing about its unit. */
export function parseDuration(value: unknown): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(trimmed(value));
  if (match === null) {
    const bare = /^\d+(\.\d+)?$/.test(trimmed(value));
    throw new UnitError(
      value,
      bare
        ? "a time with its unit, such as 500ms, 5s or 15m"
        : "a time such as 500ms, 5s, 15m, 2h or 1d",
    );
  }
  const ms = Math.round(Number(match[1]) * MS[match[2] as keyof typeof MS]);
  if (!Number.isSafeInteger(ms)) throw new UnitError(value, "a shorter time");
  return ms;
}

/** `10%` or `0.1` → 0.1. A number above 1 is refused: 10 could mean 10 % or a mistake. */
export function parseShare(value: unknown): number {
  const text = trimmed(value);
  const percent = /^(\d+(?:\.\d+)?)\s*%$/.exec(text);
  const share =
    percent === null
      ? /^\d+(\.\d+)?$/.test(text)
        ? Number(text)
        : Number.NaN
      : Number(percent[1]) / 100;
  if (!(share >= 0 && share <= 1))
    throw new UnitError(value, "a share such as 10% or 0.1, from 0% to 100%");
  return share;
}

/** `1.2x` → 1.2: how many times the value it is compared with. */
export function parseFactor(value: unknown): number {
  const match = /^(\d+(?:\.\d+)?)x$/.exec(trimmed(value));
  if (match === null || Number(match[1]) === 0) throw new UnitError(value, "a factor such as 1.2x");
  return Number(match[1]);
}

/** `+0.1%` → 0.001: how much larger a share may be than the one it is compared with. */
export function parseDelta(value: unknown): number {
  const match = /^\+(\d+(?:\.\d+)?)\s*%$/.exec(trimmed(value));
  const delta = Number(match?.[1] ?? Number.NaN) / 100;
  if (!(delta <= 1)) throw new UnitError(value, "a difference such as +0.1%");
  return delta;
}

/** `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; `:8080` means loopback, so that nothing is open by accident. */
export function parseListen(value: unknown): ListenAddress {
  const match = /^(?:\[([0-9a-f:.]+)\]|([\w.-]*)):(\d{1,5})$/i.exec(trimmed(value));
  const port = Number(match?.[3] ?? Number.NaN);
  if (match === null || !(port <= 65_535)) {
    throw new UnitError(
      value,
      "an address to listen on such as 127.0.0.1:8080, [::1]:8080 or :8080 (loopback)",
    );
  }
  return { host: match[1] ?? (match[2] || "127.0.0.1"), port };
}

const BYTES = { kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 } as const;

/** `100GB` → bytes. */
export function parseSize(value: unknown): number {
  const match = /^(\d+(?:\.\d+)?)\s*(kB|MB|GB|TB)$/.exec(trimmed(value));
  if (match === null) throw new UnitError(value, "a size such as 500MB, 100GB or 2TB");
  return Math.round(Number(match[1]) * BYTES[match[2] as keyof typeof BYTES]);
}

function trimmed(value: unknown): string {
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  return typeof value === "string" ? value.trim() : "";
}
