import type { Transform } from "../../../config/transform-types.ts";

/** The way back of order-lines.ts: lines arrive as one JSON array. */
export const transform: Transform<"lines" | "note", "items" | "note"> = ({ lines, note }) => {
  const parsed = JSON.parse(lines ?? "[]") as readonly { sku: string; qty: string }[];
  const items = parsed.map(({ sku, qty }) => `${sku}*${qty}`).join(";");
  return [{ note, items: items === "" ? null : items }];
};
