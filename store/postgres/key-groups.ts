import { type Key, travels } from "./key-scope.ts";
import type { Driver, Reader } from "./mapping.ts";
import { ident } from "./quote.ts";
import { runPrepared } from "./statement.ts";
import type { SyncContext } from "./sync.ts";
import { sourceByKeys, toColumnArrays, unnestRelation } from "./sync-sql.ts";

/** What the rows of one group hold at most, one row apart: they pass through this process as text. */
export const GROUP_BYTES = 16 << 20;

/** Types whose text is short, however the column is declared. */
const SHORT =
  /^(smallint|integer|bigint|real|double precision|boolean|date|uuid|numeric(\(.*\))?|oid|money|interval|inet|cidr|macaddr8?|time.*)$/;
const SHORT_BYTES = 64;
/** What compressed values may grow to, roughly. */
const COMPRESSED = 8;

/**
 * Splits keys so that the rows of a group fit into this process together, however large single values are. Rows are
 * measured where they are, without reading large values; where their types already tell that they fit, nothing is asked.
 */
export async function groupKeys(
  context: SyncContext,
  driver: Driver,
  keys: readonly Key[],
): Promise<readonly (readonly Key[])[]> {
  let groups: readonly (readonly Key[])[] = [keys];
  for (const reader of driver.readers) {
    if (!travels(context, reader)) continue;
    const split: (readonly Key[])[] = [];
    for (const group of groups) split.push(...(await splitFor(context, driver, reader, group)));
    groups = split;
  }
  return groups;
}

async function splitFor(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  keys: readonly Key[],
): Promise<readonly (readonly Key[])[]> {
  if (keys.length < 2 || keys.length * widestRow(reader) <= GROUP_BYTES) return [keys];
  const rows = sourceByKeys(driver, reader, context.compiled.sourceSchema, 1);
  const size = sizeOf(reader);
  const values = toColumnArrays(keys, driver.key.length);
  const [total] = await runPrepared(
    context.source,
    `select coalesce(sum(${size}), 0)::text from ${rows} as cf_s`,
    values,
  );
  if (Number(total?.[0] ?? 0) <= GROUP_BYTES) return [keys];
  const columns = driver.key.map((column, i) => ({ name: `c${i}`, type: column.baseType }));
  const numbered = unnestRelation([...columns, { name: "n", type: "int" }], 1);
  const on = driver.key.map((column, i) => `cf_s.${ident(column.name)} = cf_k.c${i}`).join(" and ");
  // Each group begins where the running total passes a multiple of the bound.
  const starts = await runPrepared(
    context.source,
    `select min(n)::text from (
       select n, trunc((sum(bytes) over (order by n) - bytes) / ${GROUP_BYTES}) as part from (
         select cf_k.n, coalesce(sum(${size}), 0) as bytes from ${numbered} as cf_k left join ${rows} as cf_s on ${on}
         group by cf_k.n) cf_b) cf_p group by part order by min(n)`,
    [...values, keys.map((_, i) => String(i))],
  );
  const at = starts.map(([n]) => Number(n));
  return at.map((start, i) => keys.slice(start, at[i + 1]));
}

/** Bytes that the text of a row has at most, by its types; infinite where they do not tell. */
function widestRow(reader: Reader): number {
  return reader.columns.reduce((sum, { type }) => sum + widest(type), 0);
}

function widest(type: string): number {
  if (SHORT.test(type)) return SHORT_BYTES;
  const [, length] = /^character(?: varying)?\((\d+)\)$/.exec(type) ?? [];
  return length === undefined ? Infinity : 4 * Number(length);
}

/** SQL for the bytes of a row `cf_s`. The length of a text or bytea is known without reading the value itself. */
function sizeOf(reader: Reader): string {
  const sizes = reader.columns.flatMap(({ name, type }) => {
    const column = `cf_s.${ident(name)}`;
    if (SHORT.test(type)) return [];
    // The type here is the mapping server's; on the source it may be an enum that is text there.
    if (/^(text|character)/.test(type)) return [`coalesce(octet_length(${column}::text), 0)`];
    if (type === "bytea") return [`coalesce(2 * octet_length(${column}), 0)`];
    return [`coalesce(${COMPRESSED} * pg_column_size(${column}), 0)`];
  });
  return sizes.length === 0 ? "0" : `(${sizes.join(" + ")})::bigint`;
}
