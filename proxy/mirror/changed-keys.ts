import type { FeedBatch } from "../../store/postgres/feed.ts";
import type { CompiledDirection, Driver, LoggedTable } from "../../store/postgres/mapping.ts";
import { ident } from "../../store/postgres/quote.ts";
import { runPrepared } from "../../store/postgres/statement.ts";
import { toColumnArrays, unnestRelation } from "../../store/postgres/sync-sql.ts";
import type { Key } from "../../store/postgres/key-scope.ts";
import type pg from "pg";

/** Driving keys to sync, per driving table, each once: a hot row counts once however often it changed. */
export type ChangedKeys = ReadonlyMap<Driver, readonly Key[]>;

/** Turns what the feed handed out into driving keys: of the changed rows, and of those an `also` re-makes. */
export async function changedKeys(
  compiled: CompiledDirection,
  batch: FeedBatch,
  source: pg.Client,
): Promise<ChangedKeys> {
  const found = new Map<Driver, Map<Identity, Key>>();
  const add = (name: string, keys: Iterable<Key>) => {
    const driver = compiled.drivers.find((candidate) => candidate.name === name);
    if (driver === undefined) return;
    const known = found.get(driver) ?? new Map<Identity, Key>();
    for (const key of keys) known.set(identityOf(key), key);
    found.set(driver, known);
  };
  for (const logged of compiled.logged) {
    const rows = distinctRows(batch, logged);
    if (rows.length === 0) continue;
    const { drives } = logged;
    if (drives !== undefined)
      add(
        logged.name,
        rows.map((row) => drives.map((position) => row[position] ?? "")),
      );
    for (const rule of logged.also)
      add(rule.driver, await keysRemade(logged, rule.sql, rows, source));
  }
  return new Map([...found].map(([driver, keys]) => [driver, [...keys.values()]]));
}

type Identity = string | null;

/** What tells rows of one width apart. A backlog has very many, and most keys are one column. */
function identityOf(values: readonly (string | null)[]): Identity {
  return values.length === 1 ? (values[0] ?? null) : JSON.stringify(values);
}

function distinctRows(batch: FeedBatch, logged: LoggedTable): (readonly (string | null)[])[] {
  const rows = new Map<Identity, readonly (string | null)[]>();
  for (const change of batch.changes) {
    if (change.kind === "row" && change.table === logged.number)
      rows.set(identityOf(change.values), change.values);
  }
  return [...rows.values()];
}

/** Evaluates an `also` over the logged rows: an expression list over the row, or a select that refers to it. */
async function keysRemade(
  logged: LoggedTable,
  sql: string,
  rows: readonly (readonly (string | null)[])[],
  source: pg.Client,
): Promise<Key[]> {
  const columns = logged.columns.map((column) => ({ name: column.name, type: column.baseType }));
  const row = `${unnestRelation(columns, 1)} as ${ident(logged.name)}`;
  const text = /^\s*(select|with)\b/i.test(sql)
    ? `select distinct cf_k.* from ${row} cross join lateral (${sql}\n) cf_k`
    : `select distinct ${sql} from ${row}`;
  const keys = await runPrepared(source, text, toColumnArrays(rows, columns.length));
  return keys.filter((key): key is string[] => key.every((value) => value !== null));
}
