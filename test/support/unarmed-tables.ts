import type pg from "pg";
import type { Side } from "../../config/words.ts";
import { type TableRef, unarmedSql } from "../../store/postgres/guard-tables.ts";

/** The tables whose writes the guard would not see: not armed, not there, or partitions made since. */
export async function unarmedTables(
  client: pg.ClientBase,
  side: Side,
  tables: readonly TableRef[],
): Promise<TableRef[]> {
  const { rows } = await client.query<TableRef>(unarmedSql(side, tables));
  return rows;
}
