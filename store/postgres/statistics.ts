import type pg from "pg";
import { allMappings, type CompiledDirection } from "./mapping.ts";
import { relation } from "./quote.ts";
import { run } from "./statement.ts";

/**
 * Collects planner statistics of the target tables of a direction that have none yet, or changed by more than a tenth since.
 * A table that was just copied is unknown to the planner until autovacuum comes by, a minute or more later: until then the
 * follower's app reads it with the wrong plans, and so do reverse mappings (one over 8,400 rows scanned a whole table 22,000
 * times and took 7 s). Changes no rows; where the privilege is missing, Postgres skips the table with a warning.
 */
export async function refreshStatistics(
  target: pg.ClientBase,
  compiled: CompiledDirection,
): Promise<void> {
  for (const table of await outdated(target, compiled))
    await run(target, `analyze ${relation(compiled.targetSchema, table)}`);
}

async function outdated(target: pg.ClientBase, compiled: CompiledDirection): Promise<string[]> {
  const tables = new Set(allMappings(compiled).map(({ mapping }) => mapping.target.name));
  // reltuples is -1 until the first VACUUM or ANALYZE.
  const rows = await run(
    target,
    `select c.relname from pg_class c
     join pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
     left join pg_stat_user_tables s on s.relid = c.oid
     where c.relname = any($2::text[])
       and (c.reltuples < 0 or s.n_mod_since_analyze > 50 + 0.1 * c.reltuples)
     order by 1`,
    [compiled.targetSchema, [...tables]],
  );
  return rows.map(([name]) => name ?? "");
}
