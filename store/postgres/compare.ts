import {
  boundsSql,
  compareSql,
  differSql,
  explainSql,
  type KeyBound,
  mayHaveExtra,
} from "./compare-sql.ts";
import { groupKeys } from "./key-groups.ts";
import {
  type Key,
  type KeyScope,
  keysInRange,
  mappedRelation,
  ownedRelation,
  type Part,
  readRows,
} from "./key-scope.ts";
import { type Driver, type Mapping, takenByKeys } from "./mapping.ts";
import { inTransaction } from "./session.ts";
import { type StagedChunk, stageChunk } from "./stage.ts";
import { run, runPrepared, type TextRow } from "./statement.ts";
import { isRefusal } from "./sync-keys.ts";
import type { SyncContext } from "./sync.ts";
import type { KeyRange } from "./sync-sql.ts";

export type DifferenceKind = "missing" | "extra" | "different";

/** A source key whose target rows are not what the mapping makes of it. */
export interface Difference {
  readonly mapping: string;
  readonly kind: DifferenceKind;
  readonly key: Key;
  /** Digests of the row the mapping makes and of the row that is there: whether they move between two looks. */
  readonly expected: string | null;
  readonly found: string | null;
}

export interface Comparison {
  /** Mapped rows that were compared. */
  readonly compared: number;
  readonly differences: readonly Difference[];
}

/** Enough to hold every key of a chunk; a chunk that differs more than this is reported with this many. */
const LIMIT = 100_000;

type Wanted = (mapping: Mapping) => boolean;

/**
 * Compares a chunk: reads the source rows of the range, then the target rows, so what is in flight between the two
 * shows as a difference and has to be looked at again. A row whose expressions fail differs; the others are compared
 * all the same. Changes nothing.
 */
export async function compareChunk(
  context: SyncContext,
  driver: Driver,
  range: KeyRange,
  wanted: Wanted,
): Promise<Comparison> {
  if (takenByKeys(driver))
    return compareKeys(context, driver, await keysInRange(context, driver, range), wanted);
  try {
    return await inTransaction(context.target, () => compareStaged(context, driver, range, wanted));
  } catch (error) {
    if (!isRefusal(error)) throw error;
    return compareKeys(context, driver, await keysInRange(context, driver, range), wanted);
  }
}

async function compareStaged(
  context: SyncContext,
  driver: Driver,
  range: KeyRange,
  wanted: Wanted,
): Promise<Comparison> {
  const found: Comparison[] = [];
  for (const reader of driver.readers.filter((candidate) => candidate.mappings.some(wanted))) {
    const staged = await stageChunk(context, driver, reader, range);
    for (const mapping of reader.mappings.filter(wanted)) {
      found.push(await compareStagedMapping(context, driver, mapping, staged));
    }
  }
  return sum(found);
}

/** Most chunks are equal: that is seen by counting, and only one that is not is joined again for its differences. */
async function compareStagedMapping(
  { target }: SyncContext,
  driver: Driver,
  mapping: Mapping,
  staged: StagedChunk,
): Promise<Comparison> {
  const mapped = await staged.mapped(mapping, { withKeys: true, stored: true });
  const bounds = (await run(target, boundsSql(mapping, mapped))) as KeyBound[];
  if (!mayHaveExtra(mapping)) {
    const [row] = await run(target, differSql(mapping, mapped, bounds));
    if (row?.[1] === "0") return { compared: Number(row[0]), differences: [] };
  }
  const owned = await staged.owned(mapping);
  const sql = compareSql(driver, mapping, mapped, owned, { limit: LIMIT, bounds });
  return toComparison(mapping, await run(target, sql));
}

/** Compares the rows of some keys; halves them when an expression fails, until the failing ones stand alone. Changes nothing. */
export async function compareKeys(
  context: SyncContext,
  driver: Driver,
  keys: readonly Key[],
  wanted: Wanted,
): Promise<Comparison> {
  const found: Comparison[] = [];
  for (const group of await groupKeys(context, driver, keys))
    found.push(await compareGroup(context, driver, group, wanted));
  return sum(found);
}

async function compareGroup(
  context: SyncContext,
  driver: Driver,
  keys: readonly Key[],
  wanted: Wanted,
): Promise<Comparison> {
  try {
    const found: Comparison[] = [];
    for (const reader of driver.readers.filter((candidate) => candidate.mappings.some(wanted))) {
      const scope: KeyScope = { keys, rows: await readRows(context, driver, reader, keys) };
      for (const mapping of reader.mappings.filter(wanted)) {
        found.push(await compareScope(context, { driver, reader, mapping }, scope));
      }
    }
    return sum(found);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    const [key] = keys;
    if (keys.length === 1 && key !== undefined) return compareFailing(context, driver, key, wanted);
    const middle = keys.length >> 1;
    return sum([
      await compareGroup(context, driver, keys.slice(0, middle), wanted),
      await compareGroup(context, driver, keys.slice(middle), wanted),
    ]);
  }
}

/** A key with a mapping that fails: nothing is known to be right of that one; the others are compared. */
async function compareFailing(
  context: SyncContext,
  driver: Driver,
  key: Key,
  wanted: Wanted,
): Promise<Comparison> {
  const mappings = driver.readers.flatMap((reader) => reader.mappings).filter(wanted);
  const [only] = mappings;
  if (mappings.length === 1 && only !== undefined) {
    const unknown = { kind: "different", expected: null, found: null } as const;
    return { compared: 1, differences: [{ mapping: only.path, key, ...unknown }] };
  }
  const found: Comparison[] = [];
  for (const mapping of mappings)
    found.push(await compareGroup(context, driver, [key], (one) => one === mapping));
  return sum(found);
}

async function compareScope(
  context: SyncContext,
  part: Part,
  scope: KeyScope,
): Promise<Comparison> {
  const mapped = await mappedRelation(context, part, scope, { withKeys: true, stored: true });
  const owned = await ownedRelation(context, part.driver, part.mapping.own, scope.keys, {
    first: mapped.values.length + 1,
    withKeys: true,
  });
  const sql = compareSql(part.driver, part.mapping, mapped.sql, owned.sql, { limit: LIMIT });
  return toComparison(
    part.mapping,
    await runPrepared(context.target, sql, [...mapped.values, ...owned.values]),
  );
}

function toComparison(mapping: Mapping, rows: readonly TextRow[]): Comparison {
  const differences = rows
    .filter(([, kind]) => kind !== null)
    .map(([, kind, expected, found, ...key]) => ({
      mapping: mapping.path,
      kind: kind as DifferenceKind,
      key: key as string[],
      expected: expected ?? null,
      found: found ?? null,
    }));
  return { compared: Number(rows[0]?.[0] ?? 0), differences };
}

function sum(parts: readonly Comparison[]): Comparison {
  return {
    compared: parts.reduce((total, part) => total + part.compared, 0),
    differences: parts.flatMap((part) => part.differences),
  };
}

/** The distinct keys of some differences. */
export function keysOf(differences: readonly Difference[]): Key[] {
  return [
    ...new Map(
      differences.map((difference) => [JSON.stringify(difference.key), difference.key]),
    ).values(),
  ];
}

/** A column of a row that differs. */
export interface ColumnDifference {
  readonly column: string;
  readonly expected: string | null;
  readonly found: string | null;
}

/** Wider tables than this cannot be shown column by column: a select has at most 1,664. */
const EXPLAINED_COLUMNS = 500;

/** In which columns rows differ, by `differenceName`; a row that changed meanwhile, or fails, is left out. Changes nothing. */
export async function explainDifferences(
  context: SyncContext,
  driver: Driver,
  differences: readonly Difference[],
): Promise<ReadonlyMap<string, readonly ColumnDifference[]>> {
  const explained = new Map<string, readonly ColumnDifference[]>();
  for (const reader of driver.readers) {
    for (const mapping of reader.mappings) {
      const open = differences.filter(
        ({ mapping: path, kind }) => path === mapping.path && kind === "different",
      );
      if (open.length === 0 || mapping.columns.length > EXPLAINED_COLUMNS) continue;
      try {
        const keys = keysOf(open);
        const scope: KeyScope = { keys, rows: await readRows(context, driver, reader, keys) };
        for (const [key, columns] of await explainScope(
          context,
          { driver, reader, mapping },
          scope,
        ))
          explained.set(differenceName({ mapping: mapping.path, key }), columns);
      } catch (error) {
        if (!isRefusal(error)) throw error;
      }
    }
  }
  return explained;
}

async function explainScope(
  context: SyncContext,
  part: Part,
  scope: KeyScope,
): Promise<[Key, ColumnDifference[]][]> {
  const { driver, mapping } = part;
  const mapped = await mappedRelation(context, part, scope, { withKeys: true, stored: true });
  const sql = explainSql(driver, mapping, mapped.sql);
  const rows = await runPrepared(context.target, sql, mapped.values);
  const width = driver.key.length;
  return rows.map((row) => {
    const columns = mapping.columns.flatMap(({ name }, i) => {
      const [differs, expected = null, found = null] = row.slice(width + 3 * i, width + 3 * i + 3);
      return differs === "true" ? [{ column: name, expected, found }] : [];
    });
    return [row.slice(0, width) as string[], columns];
  });
}

/** What a difference is told from others by. */
export function differenceName({ mapping, key }: Pick<Difference, "mapping" | "key">): string {
  return mapping + JSON.stringify(key);
}
