import type { Transform } from "../../../config/transform-types.ts";

/** `a,b` makes two rows; some words make trouble instead, as modules do that nobody type-checks. */
export const transform = ((row) => {
  const words = row["words"] ?? null;
  if (words === null) return [];
  if (words === "reject") return { reject: "not wanted" };
  if (words === "throw") throw new Error(`no idea what to do with ${words}`);
  const values: Record<string, unknown> = {
    number: 7,
    zero: "a\0b",
    half: "\u{1F600}".slice(0, 1),
    refused: "refused",
  };
  return words
    .split(",")
    .map((word, i) => ({ n: String(i), word: word in values ? values[word] : word })) as never;
}) satisfies Transform;
