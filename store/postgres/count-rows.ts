import type pg from "pg";
import type { Direction, Side } from "../../config/words.ts";
import { sourceOf, targetOf } from "../../config/words.ts";
import { allMappings } from "./mapping.ts";
import { relation } from "./quote.ts";
import { run } from "./statement.ts";
import type { SyncContext } from "./sync.ts";

/** Rows of each mapped table of a side, as they stood when it was counted. */
export type RowCounts = Readonly<Record<Side, Readonly<Record<string, number>>>>;

/** Reads every mapped table once, on both sides. What is in flight makes the two differ: a count is no comparison. */
export async function countRows(
  { compiled, source, target }: SyncContext,
  direction: Direction,
): Promise<RowCounts> {
  const drivers = compiled.drivers.map(({ name }) => name);
  const targets = new Set(allMappings(compiled).map(({ mapping }) => mapping.target.name));
  const [from, to] = await Promise.all([
    countEach(source, compiled.sourceSchema, drivers),
    countEach(target, compiled.targetSchema, [...targets]),
  ]);
  return { [sourceOf(direction)]: from, [targetOf(direction)]: to } as RowCounts;
}

async function countEach(
  client: pg.Client,
  schema: string,
  tables: readonly string[],
): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const table of tables) {
    const [row] = await run(client, `select count(*) from ${relation(schema, table)}`);
    counts[table] = Number(row?.[0]);
  }
  return counts;
}
