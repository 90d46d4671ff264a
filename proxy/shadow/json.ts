/** A number that a double cannot hold: compared and shown by all its digits. */
export class ExactNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** Digits that every double keeps. */
const SAFE_DIGITS = 15;
/** Where such a number may stand: reading every number by its text costs time. */
const MAY_BE_EXACT = /[\d.]{16}|\d[eE][+-]?\d{3}/;

type Reviver = (key: string, value: unknown, context: { readonly source?: string }) => unknown;

/** JSON with every number by its value: `1.0` is `1`, and no digit of a long one is lost. Throws on what is not JSON. */
export function parseJson(text: string): unknown {
  if (!MAY_BE_EXACT.test(text)) return JSON.parse(text);
  const revive: Reviver = (_key, value, { source }) =>
    typeof value === "number" && source !== undefined ? byValue(source) : value;
  return (JSON.parse as (json: string, reviver: Reviver) => unknown)(text, revive);
}

function byValue(source: string): number | ExactNumber {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(source);
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = match ?? [];
  const leading = (whole + fraction).replace(/^0+/, "");
  const digits = leading.replace(/0+$/, "");
  const power = Number(exponent) - fraction.length + (leading.length - digits.length);
  if (digits === "") return 0;
  if (digits.length <= SAFE_DIGITS && Math.abs(power) < 250) return Number(source);
  return new ExactNumber(`${sign}${digits}e${power}`);
}

/** JSON text with keys in order: the same for everything that is the same. */
export function canonicalJson(value: unknown): string {
  return (
    JSON.stringify(value, (_key, part: unknown) => {
      if (part instanceof ExactNumber) return `\u0000${part.text}`;
      return isRecord(part)
        ? Object.fromEntries(
            Object.keys(part)
              .toSorted()
              .map((key) => [key, part[key]]),
          )
        : part;
    }) ?? "absent"
  );
}

/** A map of JSON: no list, no exact number. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof ExactNumber)
  );
}
