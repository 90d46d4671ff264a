import type pg from "pg";
import { copyRows } from "./copy-rows.ts";
import { rowsTravel } from "./mapping.ts";
import type { Driver, Mapping, Reader } from "./mapping.ts";
import { ident } from "./quote.ts";
import { runBatch } from "./statement.ts";
import type { SyncContext } from "./sync.ts";
import {
  keyTexts,
  mappedSelect,
  type MappedOptions,
  ownedSelect,
  sourceByRange,
  storedType,
  type KeyRange,
  type TypedColumn,
} from "./sync-sql.ts";
import { runOnceInSync } from "./travel.ts";

/**
 * A chunk of a reader, staged on the target. Rows travel between servers by COPY through this process as bytes, into a
 * temporary table per session that empties itself at commit. In one database nothing travels.
 */
export interface StagedChunk {
  /** What a mapping makes of the chunk, as a query on the target. */
  mapped(mapping: Mapping, options?: MappedOptions): Promise<string>;
  /** The own values of the chunk's keys with the keys themselves, as a query on the target. */
  owned(mapping: Mapping): Promise<string>;
  /** The raw rows where expressions run: a relation for `rejectedSelect`. */
  readonly raw: string;
  /** How many source rows there are. */
  rows(): Promise<number>;
  /** The keys of the chunk's source rows. */
  keys(): Promise<string[][]>;
}

/** Stages the rows of `range`. Call inside a transaction of the target session. */
export async function stageChunk(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  range: KeyRange,
): Promise<StagedChunk> {
  const { compiled } = context;
  const inPlace = sourceByRange(driver, reader, compiled.sourceSchema, range);
  if (rowsTravel(compiled, reader)) return stagedForward(context, driver, reader, inPlace);
  return compiled.sameDatabase
    ? stagedInPlace(context, driver, inPlace, context.target)
    : stagedReverse(context, driver, inPlace);
}

const keyText = (driver: Driver) =>
  driver.key.map((column) => `cf_s.${ident(column.name)}`).join(", ");

function stagedInPlace(
  context: SyncContext,
  driver: Driver,
  raw: string,
  where: pg.Client,
): StagedChunk {
  return {
    raw,
    mapped: async (mapping, options) => mappedSelect(driver, mapping, raw, options),
    owned: async (mapping) =>
      mapping.own.kind === "none" ? "" : ownedSelect(driver, mapping.own.columns, raw, true),
    rows: () => countRows(context, where, raw),
    keys: async () =>
      (await runOnceInSync(
        context,
        where,
        `select ${keyText(driver)} from ${raw} cf_s`,
      )) as string[][],
  };
}

async function countRows(context: SyncContext, where: pg.Client, raw: string): Promise<number> {
  const [row] = await runOnceInSync(context, where, `select count(*)::text from ${raw} cf_s`);
  return Number(row?.[0] ?? 0);
}

/** Old rows arrive in the old table's own shape; expressions run here. */
async function stagedForward(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  inPlace: string,
): Promise<StagedChunk> {
  const stage = `cf_stage_${driver.number}_${driver.readers.indexOf(reader)}`;
  const select = `select * from ${inPlace} cf_s`;
  const rows = await stageRows(context, stage, reader.columns, select, reader.binary);
  return {
    ...stagedInPlace(context, driver, `(select * from pg_temp.${stage})`, context.target),
    rows: async () => rows,
  };
}

/** Expressions run at the source; plain rows arrive. */
function stagedReverse(context: SyncContext, driver: Driver, inPlace: string): StagedChunk {
  const keys = keyTexts(driver);
  // Numbers, because two paths may be one when they are made into an identifier.
  const mappings = driver.readers.flatMap((reader) => reader.mappings);
  const name = (mapping: Mapping, kind: string) =>
    `cf_${kind}_${driver.number}_${mappings.indexOf(mapping)}`;
  return {
    raw: inPlace,
    async mapped(mapping, options) {
      const columns = mapping.columns.map((column) => ({
        name: column.name,
        type: column.targetBaseType,
      }));
      const stage = name(mapping, "m");
      const select = mappedSelect(driver, mapping, inPlace, { withKeys: true });
      await stageRows(context, stage, [...columns, ...keys], select, false);
      const items = mapping.columns.map((column) =>
        options?.stored === true
          ? `${ident(column.name)}::${storedType(column)} as ${ident(column.name)}`
          : ident(column.name),
      );
      return `select ${[...items, ...keys.map((key) => key.name)].join(", ")} from pg_temp.${stage}`;
    },
    async owned(mapping) {
      if (mapping.own.kind === "none") return "";
      const columns = mapping.own.columns.map((column) => ({
        name: column.column,
        type: column.targetBaseType,
      }));
      const stage = name(mapping, "o");
      await stageRows(
        context,
        stage,
        [...columns, ...keys],
        ownedSelect(driver, mapping.own.columns, inPlace, true),
        false,
      );
      return `select * from pg_temp.${stage}`;
    },
    rows: () => countRows(context, context.source, inPlace),
    keys: async () =>
      (await runOnceInSync(
        context,
        context.source,
        `select ${keyText(driver)} from ${inPlace} cf_s`,
      )) as string[][],
  };
}

/** Copies the result of `select` on the source into a temporary table on the target. Returns the number of rows. */
export async function stageRows(
  context: SyncContext,
  stage: string,
  columns: readonly TypedColumn[],
  select: string,
  binary: boolean,
): Promise<number> {
  const shape = columns.map((column) => `${ident(column.name)} ${column.type}`).join(", ");
  // One table per session and scope: creating one per transaction bloats the catalog, as emptying it by `truncate` would.
  await runBatch(context.target, [
    `create temporary table if not exists ${stage} (${shape}) on commit delete rows`,
    `delete from pg_temp.${stage}`,
  ]);
  const { rows } = await copyRows(context, { select, into: `pg_temp.${stage}`, binary });
  return rows;
}
