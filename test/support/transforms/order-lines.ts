import type { Transform } from "../../../config/transform-types.ts";

/** `bolt*2.50;nut*1`: no split that SQL does for us. */
export const transform: Transform<"items", "line" | "sku" | "qty"> = ({ items }) => {
  if (items === null) return [];
  const lines = items.split(";").map((item) => /^(.+)\*(\d+(?:\.\d+)?)$/.exec(item));
  return lines.every((match) => match !== null)
    ? lines.map(([, sku = null, qty = null], i) => ({ line: String(i + 1), sku, qty }))
    : { reject: `cannot be read: ${items}` };
};

/** The time a line was made is the database's to say. */
export const columns = ["line", "sku", "qty"];
