import type { ForeignKey, Table } from "./catalog.ts";
import type { CompiledDirection, Mapping } from "./mapping.ts";
import { ident, relation } from "./quote.ts";
import { run } from "./statement.ts";
import type { SyncContext } from "./sync.ts";

/** A foreign key of a mapped target table. */
export interface Reference {
  readonly table: Table;
  readonly key: ForeignKey;
}

/** Every foreign key of the tables that these mappings write, valid or not. */
export function referencesOf(
  compiled: CompiledDirection,
  wanted: (mapping: Mapping) => boolean,
): Reference[] {
  const tables = new Map<string, Table>();
  for (const driver of compiled.drivers) {
    for (const { target } of driver.readers.flatMap((reader) => reader.mappings).filter(wanted))
      tables.set(target.name, target);
  }
  return [...tables.values()].flatMap((table) => table.foreignKeys.map((key) => ({ table, key })));
}

/**
 * Keys (as text) of rows whose foreign key points at nothing. Sync sessions run in replica role, where the database does
 * not check foreign keys, so verify does. A reference with a null part holds (MATCH SIMPLE).
 */
export async function findBrokenReferences(
  context: SyncContext,
  { table, key }: Reference,
  limit: number,
): Promise<string[][]> {
  const names = table.key.map((name) => `cf_c.${ident(name)}`).join(", ");
  const matches = key.columns
    .map((name, i) => `cf_p.${ident(key.referencedColumns[i] ?? "")} = cf_c.${ident(name)}`)
    .join(" and ");
  const present = key.columns.map((name) => `cf_c.${ident(name)} is not null`).join(" and ");
  const rows = await run(
    context.target,
    `select ${names} from ${relation(table.schema, table.name)} cf_c where ${present}
       and not exists (select from ${relation(key.referencedSchema, key.referencedTable)} cf_p where ${matches})
     limit ${Math.round(limit)}`,
  );
  return rows as string[][];
}
