import type pg from "pg";
import type { Side } from "../../config/words.ts";
import { installFollowTables, logTable } from "./follow-schema.ts";
import {
  installLog,
  lockPatience,
  rememberFeed,
  rememberTable,
  withShortLock,
} from "./install-feed.ts";
import type { LockPatience } from "./install-feed.ts";
import { truncateFunctionSql, truncateTriggerSql } from "./log-trigger.ts";
import type { LoggedTable } from "./mapping.ts";
import { ident, relation } from "./quote.ts";
import { changedShapes } from "./shape-watch.ts";
import { run } from "./statement.ts";
import { assertFitForWal, publishable } from "./wal-fitness.ts";
import { dropSlot, ensureSlot } from "./wal-slot.ts";

export function publicationName(side: Side): string {
  return `crossfade_${side}`;
}

/**
 * Installs the wal feed of a side: the log (for fences), a publication of keys, and the slot, in this order: a slot that
 * comes upon a place where its publication did not exist can never be read again. Idempotent. Tables that DDL changed
 * meanwhile are left as they are: `resume` sees to those. `signal` stops it where it would wait for a lock.
 */
export async function installWalFeed(
  client: pg.Client,
  side: Side,
  tables: readonly LoggedTable[],
  signal?: AbortSignal,
): Promise<void> {
  await assertFitForWal(client, side, tables);
  await installFollowTables(client);
  await installLog(client, side);
  if (tables.length > 0) {
    const patience = lockPatience(signal);
    const schema = tables[0]?.table.schema ?? "public";
    const changed = await changedShapes({ client, side, schema, role: "source" });
    const known = tables.filter((logged) => !changed.some(({ table }) => table === logged.name));
    await publish(client, side, known, patience);
    for (const logged of known) {
      await installTruncateTriggers(client, side, logged, patience);
      await rememberTable(client, side, logged);
    }
    await ensureSlot(client, side);
  }
  await rememberFeed(client, side, "wal");
}

/** TRUNCATE of a partition alone is not published under the root; a trigger there writes it to the log. */
async function installTruncateTriggers(
  client: pg.Client,
  side: Side,
  logged: LoggedTable,
  patience: LockPatience,
): Promise<void> {
  if (logged.table.leaves.length === 0) return;
  await client.query(truncateFunctionSql(side, logged));
  for (const leaf of logged.table.leaves)
    await withShortLock(client, truncateTriggerSql(side, logged, leaf), patience);
}

/** Adds what is missing and changes what differs; a table that stays as it is, is not touched. */
async function publish(
  client: pg.Client,
  side: Side,
  tables: readonly LoggedTable[],
  patience: LockPatience,
): Promise<void> {
  const name = ident(publicationName(side));
  const [found] = await run(client, "select 1 from pg_publication where pubname = $1", [
    publicationName(side),
  ]);
  if (found === undefined) {
    // It comes upon places without its publication, and could never be read again.
    await dropSlot(client, side);
    await run(
      client,
      `create publication ${name} for table only ${logTable(side)} with (publish_via_partition_root = true)`,
    );
  }
  const published = await readPublished(client, side);
  for (const entry of await publishable(client, tables)) {
    if ("why" in entry) continue;
    const { schema, name: table } = entry.logged.table;
    const sql = relation(schema, table);
    const list = entry.columns === undefined ? "" : `(${entry.columns.map(ident).join(", ")})`;
    const was = published.get(sql);
    if (was === list) continue;
    await withShortLock(
      client,
      [
        ...(was === undefined ? [] : [`alter publication ${name} drop table only ${sql}`]),
        // `only` means partitions too where the table has partitions: they belong to it.
        `alter publication ${name} add table only ${sql} ${list}`,
      ],
      patience,
    );
  }
}

/** Tables of the publication with their column list as we would write it; "" without one. */
async function readPublished(client: pg.Client, side: Side): Promise<Map<string, string>> {
  // Postgres 14 has no column lists, and no `prattrs`.
  const rows = await run(
    client,
    `select n.nspname, c.relname, (
       select json_agg(a.attname order by a.attname collate "C")::text from pg_attribute a
       where a.attrelid = c.oid and a.attnum in (
         select v::int from jsonb_array_elements_text(nullif(to_jsonb(r)->'prattrs', 'null')) v))
     from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
     join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace
     where p.pubname = $1`,
    [publicationName(side)],
  );
  return new Map(
    rows.map(([schema, name, columns]) => [
      relation(schema ?? "", name ?? ""),
      columns == null ? "" : `(${(JSON.parse(columns) as string[]).map(ident).join(", ")})`,
    ]),
  );
}
