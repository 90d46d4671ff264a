import { groupKeys } from "./key-groups.ts";
import {
  type Key,
  keyOf,
  type KeyScope,
  mappedRelation,
  mapperOf,
  ownedRelation,
  type Part,
  rawRelation,
  readRows,
} from "./key-scope.ts";
import type { Later } from "./later.ts";
import { type Driver, type Mapping, mayRepeat, type Reader, rowsTravel } from "./mapping.ts";
import { clearHealed, type Refusal } from "./quarantine.ts";
import { recordRefused } from "./record-refused.ts";
import { sqlState } from "./session.ts";
import { run } from "./statement.ts";
import type { SyncContext, SyncTransaction } from "./sync.ts";
import { applySql, type ApplyOptions, rejectedSelect, repeatedSelect } from "./sync-sql.ts";
import { outcomeOf, TransformFailed } from "./transform.ts";
import { runInSync } from "./travel.ts";

export interface KeySyncOptions extends ApplyOptions {
  /**
   * Isolate refused keys with savepoints instead of failing as a whole. The first try of a pass goes without, because
   * savepoints cost two round trips per mapping and refusals are rare.
   */
  readonly careful: boolean;
  /** false: a foreign-key or unique refusal is final; or of which keys it is not. */
  readonly defer: boolean | ((key: Key) => boolean);
}

/** Errors by which the target (or what the plan says of a row) refuses a row, as opposed to trouble with the server. */
export function isRefusal(error: unknown): boolean {
  if (error instanceof TransformFailed) return true;
  const state = sqlState(error);
  if (state === undefined) return false;
  // 21 cardinality, 22 data, 23 integrity, 42804/42846 type does not fit, P0001 raised by a user's trigger or check
  return /^(21|22|23)/.test(state) || state === "42804" || state === "42846" || state === "P0001";
}

/** 23503 foreign key, 23505 unique, 23P01 exclusion: another key's sync may heal these. */
function mayHeal(state: string | undefined): boolean {
  return state === "23503" || state === "23505" || state === "23P01";
}

/**
 * Makes the target equal the mappings of `driver` for `keys`, inside a syncTransaction whose scope holds their
 * stripes. Reads the source now. Refusals are recorded in the same transaction; those not accepted are returned.
 */
export async function syncKeys(
  context: SyncContext,
  transaction: SyncTransaction,
  driver: Driver,
  keys: readonly Key[],
  options: KeySyncOptions,
): Promise<Refusal[]> {
  const open: Refusal[] = [];
  for (const group of await groupKeys(context, driver, keys))
    open.push(...(await syncGroup(context, transaction, driver, group, options)));
  return open;
}

async function syncGroup(
  context: SyncContext,
  transaction: SyncTransaction,
  driver: Driver,
  keys: readonly Key[],
  options: KeySyncOptions,
): Promise<Refusal[]> {
  if (keys.length === 0) return [];
  const refusals: Refusal[] = [];
  for (const reader of driver.readers) {
    const scope = options.careful
      ? await readCarefully(context, driver, reader, keys, refusals)
      : { keys, rows: await readRows(context, driver, reader, keys, transaction.checksReads) };
    for (const mapping of reader.mappings) {
      const part = { driver, reader, mapping };
      refusals.push(
        ...(options.careful
          ? await syncCarefully(context, part, scope, options)
          : await syncMapping(context, part, scope, options, transaction.later)),
      );
    }
  }
  if (refusals.length > 0 || transaction.hasQuarantine) await transaction.later.send();
  const open = await recordRefused(context, driver, refusals);
  if (transaction.hasQuarantine)
    await clearHealed(context.target, context.compiled.direction, driver.name, keys, refusals);
  return open;
}

/** Reads the rows; keys whose row makes the query fail are refused one by one, the others go on. */
async function readCarefully(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  keys: readonly Key[],
  refusals: Refusal[],
): Promise<KeyScope> {
  try {
    return { keys, rows: await readRows(context, driver, reader, keys) };
  } catch (error) {
    if (!isRefusal(error)) throw error;
    if (keys.length === 1) {
      for (const mapping of reader.mappings)
        refusals.push(refusalOf(driver, mapping, keys[0] ?? [], error as Error, false));
      return { keys: [], rows: [] };
    }
    const middle = keys.length >> 1;
    const first = await readCarefully(context, driver, reader, keys.slice(0, middle), refusals);
    const second = await readCarefully(context, driver, reader, keys.slice(middle), refusals);
    return { keys: [...first.keys, ...second.keys], rows: [...first.rows, ...second.rows] };
  }
}

/** Syncs one mapping for a scope as a whole, what is written `later` if that is given; returns the keys it rejects. */
async function syncMapping(
  context: SyncContext,
  part: Part,
  scope: KeyScope,
  options: ApplyOptions,
  later?: Later,
): Promise<Refusal[]> {
  // A condition may look at what other mappings make.
  if (asksBefore(context, part)) await later?.send();
  const rejected = await rejectedKeys(context, part, scope);
  const accepted =
    rejected.size === 0
      ? scope
      : subset(part.driver, part.reader, scope, (key) => !rejected.has(JSON.stringify(key)));
  await apply(context, part, accepted, options, later);
  return [...rejected].map(([key, reason]) =>
    refusal(
      part.driver,
      part.mapping,
      JSON.parse(key) as string[],
      reason,
      undefined,
      "quarantined",
    ),
  );
}

/** Something has to be known of the rows before they are written. */
function asksBefore({ compiled }: SyncContext, { driver, reader, mapping }: Part): boolean {
  return mapping.rejects.length > 0 || (mayRepeat(driver, reader) && !rowsTravel(compiled, reader));
}

/** Keys (as JSON) that the mapping's conditions or its module reject, with the reason. Their target rows stay as they are. */
async function rejectedKeys(
  context: SyncContext,
  part: Part,
  scope: KeyScope,
): Promise<Map<string, string>> {
  const { driver, reader, mapping } = part;
  const rejected = new Map<string, string>();
  for (const key of await repeatedKeys(context, driver, reader, scope))
    rejected.set(
      key,
      `${reader.query === undefined ? "the table has" : "the query returns"} more than one row for this key`,
    );
  if (reader.transform !== undefined) {
    for (const row of scope.rows) {
      const outcome = outcomeOf(row);
      if (outcome.kind !== "rows")
        rejected.set(JSON.stringify(keyOf(driver, reader, row)), outcome.reason);
    }
    return rejected;
  }
  if (scope.keys.length === 0) return rejected;
  const raw = rawRelation(context, driver, reader, scope);
  const sql = rejectedSelect(driver, mapping, raw.sql);
  if (sql === undefined) return rejected;
  for (const row of await runInSync(context, mapperOf(context), sql, raw.values)) {
    rejected.set(JSON.stringify(row.slice(0, -1)), row.at(-1) ?? "");
  }
  return rejected;
}

/** Keys (as JSON) for which there is more than one row. */
async function repeatedKeys(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  scope: KeyScope,
): Promise<string[]> {
  if (!mayRepeat(driver, reader) || scope.keys.length === 0) return [];
  if (!rowsTravel(context.compiled, reader)) {
    const raw = rawRelation(context, driver, reader, scope);
    const sql = repeatedSelect(driver, raw.sql);
    return (await runInSync(context, mapperOf(context), sql, raw.values)).map((key) =>
      JSON.stringify(key),
    );
  }
  const seen = new Set<string>();
  return scope.rows
    .map((row) => JSON.stringify(keyOf(driver, reader, row)))
    .filter((key) => seen.has(key) || !seen.add(key));
}

function subset(
  driver: Driver,
  reader: Reader,
  scope: KeyScope,
  keep: (key: Key) => boolean,
): KeyScope {
  return {
    keys: scope.keys.filter(keep),
    rows: scope.rows.filter((row) => keep(keyOf(driver, reader, row))),
  };
}

async function apply(
  context: SyncContext,
  part: Part,
  scope: KeyScope,
  options: ApplyOptions,
  later?: Later,
): Promise<void> {
  if (scope.keys.length === 0) return;
  const { driver, mapping } = part;
  const mapped = await mappedRelation(context, part, scope);
  const owned = await ownedRelation(context, driver, mapping.own, scope.keys, {
    first: mapped.values.length + 1,
  });
  const sql = applySql(mapping, mapped.sql, owned.sql, options);
  const values = [...mapped.values, ...owned.values];
  if (later !== undefined) await later.say(sql, values);
  else await runInSync(context, context.target, sql, values);
}

/** Syncs as a whole; on a refusal halves the keys until the refused ones stand alone. */
async function syncCarefully(
  context: SyncContext,
  part: Part,
  scope: KeyScope,
  options: KeySyncOptions,
): Promise<Refusal[]> {
  const { target } = context;
  await run(target, "savepoint cf_sync");
  try {
    const rejected = await syncMapping(context, part, scope, options);
    await run(target, "release savepoint cf_sync");
    return rejected;
  } catch (error) {
    if (!isRefusal(error)) throw error;
    await run(target, "rollback to savepoint cf_sync");
    const keys = keysAndRowKeys(part.driver, part.reader, scope);
    if (keys.length <= 1) {
      const [key = []] = keys;
      const defer = typeof options.defer === "boolean" ? options.defer : options.defer(key);
      return [refusalOf(part.driver, part.mapping, key, error as Error, defer)];
    }
    const middle = keys.length >> 1;
    const refusals: Refusal[] = [];
    for (const half of [keys.slice(0, middle), keys.slice(middle)]) {
      const names = new Set(half.map((key) => JSON.stringify(key)));
      const rows = scope.rows.filter((row) =>
        names.has(JSON.stringify(keyOf(part.driver, part.reader, row))),
      );
      refusals.push(...(await syncCarefully(context, part, { keys: half, rows }, options)));
    }
    return refusals;
  }
}

/** A row's own key may be written differently from the key that was logged (1.0 and 1.00): both count. */
function keysAndRowKeys(driver: Driver, reader: Reader, scope: KeyScope): Key[] {
  const all = new Map(scope.keys.map((key): [string, Key] => [JSON.stringify(key), key]));
  for (const row of scope.rows) {
    const key = keyOf(driver, reader, row);
    all.set(JSON.stringify(key), key);
  }
  return [...all.values()];
}

function refusalOf(
  driver: Driver,
  mapping: Mapping,
  key: Key,
  error: Error,
  defer: boolean,
): Refusal {
  const state = sqlState(error);
  return refusal(
    driver,
    mapping,
    key,
    error.message,
    state,
    defer && mayHeal(state) ? "deferred" : "quarantined",
  );
}

function refusal(
  driver: Driver,
  mapping: Mapping,
  key: Key,
  reason: string,
  sqlstate: string | undefined,
  state: Refusal["state"],
): Refusal {
  return { mapping: mapping.path, sourceTable: driver.name, key, reason, sqlstate, state };
}
