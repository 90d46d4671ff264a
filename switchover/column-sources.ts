import type { CompiledDirection } from "../store/postgres/mapping.ts";
import { allMappings } from "../store/postgres/mapping.ts";
import type { ColumnSource } from "../store/postgres/sequences.ts";

/**
 * Which source column fills which target column under another name, where the mapping carries it over as it is: a flip
 * raises the target's sequence beyond that column's. A column that is computed has no sequence to follow; the flip looks at
 * the target's own values too.
 */
export function columnSources(direction: CompiledDirection | undefined): ColumnSource[] {
  if (direction === undefined) return [];
  return allMappings(direction).flatMap(({ driver, mapping }) =>
    mapping.columns.flatMap((column) => {
      const name = carriedColumn(column.expression);
      if (name === undefined || !driver.table.columns.some((candidate) => candidate.name === name))
        return [];
      const target = {
        schema: mapping.target.schema,
        name: mapping.target.name,
        column: column.name,
      };
      const source = { schema: driver.table.schema, name: driver.table.name, column: name };
      return [{ target, source }];
    }),
  );
}

/** `id`, `"Id"`, `t.id`, `id::bigint`: the column's name; anything computed: undefined. */
export function carriedColumn(expression: string): string | undefined {
  const match =
    /^\s*(?:(?:"(?:[^"]|"")+"|[a-z_][\w$]*)\.)?("(?:[^"]|"")+"|[a-z_][\w$]*)\s*(?:::\s*[\w\s"]+)?$/i.exec(
      expression,
    );
  const name = match?.[1];
  if (name === undefined) return undefined;
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name.toLowerCase();
}
