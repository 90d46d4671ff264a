import { expect, test } from "vitest";
import { copyOrder } from "../../backfill/copy-order.ts";
import type { Driver } from "../../store/postgres/mapping.ts";

/** A table that is carried over as it is; what matters is its size and what it refers to. */
function table(name: string, estimatedRows: number, ...refersTo: string[]): Driver {
  const foreignKeys = refersTo.map((referencedTable) => ({ referencedTable }));
  return {
    name,
    table: { estimatedRows },
    readers: [{ mappings: [{ target: { name, foreignKeys } }] }],
  } as unknown as Driver;
}

test("what is referred to comes first, and of what is equal the biggest", () => {
  const order = copyOrder([
    table("countries", 200),
    table("users", 5_000, "countries"),
    table("log", 9_000_000),
    table("orders", 80_000, "users", "countries"),
    table("visits", 700_000, "users"),
    table("pets", 6_000, "countries", "pets"),
    // In a circle with what comes after it.
    table("hens", 10, "eggs"),
    table("eggs", 20, "hens"),
  ]).map(({ name }) => name);
  expect(order.join(" ")).toBe("log countries hens pets users eggs visits orders");
});
