import type { Driver } from "../store/postgres/mapping.ts";

/**
 * The order in which driving tables are copied, of tables that are in foreign-key order already: first those whose rows refer to nothing,
 * then those that refer only to what comes before; among equals the biggest first, so that no worker is left alone with it at the end.
 */
export function copyOrder(inKeyOrder: readonly Driver[]): Driver[] {
  const levels = new Map<Driver, number>();
  for (const driver of inKeyOrder) {
    const before = [...levels].filter(([other]) => refersTo(driver, other));
    levels.set(driver, Math.max(0, ...before.map(([, level]) => level + 1)));
  }
  // Sorting keeps the order of what is equal.
  return inKeyOrder.toSorted(
    (a, b) =>
      (levels.get(a) ?? 0) - (levels.get(b) ?? 0) || b.table.estimatedRows - a.table.estimatedRows,
  );
}

function refersTo(driver: Driver, other: Driver): boolean {
  const there = new Set(targetsOf(other).map(({ name }) => name));
  return targetsOf(driver).some(({ foreignKeys }) =>
    foreignKeys.some(({ referencedTable }) => there.has(referencedTable)),
  );
}

function targetsOf({ readers }: Driver) {
  return readers.flatMap((reader) => reader.mappings.map((mapping) => mapping.target));
}
