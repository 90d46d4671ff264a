/** Parts of the plan that are read and checked but do nothing yet: a user who sets one must be told. */
const PARTS: readonly { readonly path: readonly string[]; readonly says: string }[] = [];

/** One sentence for each such part that the file really sets. */
export function notActing(data: unknown): string[] {
  return PARTS.filter(({ path }) => isSet(at(data, path))).map(({ says }) => says);
}

function at(data: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (value, key) =>
      typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined,
    data,
  );
}

function isSet(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return value !== undefined && value !== "";
}
