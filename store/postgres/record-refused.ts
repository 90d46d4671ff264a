import type { Driver, Reader } from "./mapping.ts";
import { ident } from "./quote.ts";
import { recordRefusals, type RefusedRow, type Refusal } from "./quarantine.ts";
import { sqlState } from "./session.ts";
import type { SyncContext } from "./sync.ts";
import { sourceByKeys, toColumnArrays, unnestRelation } from "./sync-sql.ts";
import { runInSync } from "./travel.ts";

/**
 * Puts refused keys of `driver` into quarantine, with what tells later whether the row is still the same. Returns those
 * whose loss nobody has accepted. The digests are read after the refused rows, so an acceptance never covers a row
 * older than the entry it was given for.
 */
export async function recordRefused(
  context: SyncContext,
  driver: Driver,
  refusals: readonly Refusal[],
): Promise<Refusal[]> {
  if (refusals.length === 0) return [];
  const rows: RefusedRow[] = [];
  for (const reader of driver.readers) {
    const own = refusals.filter((refusal) =>
      reader.mappings.some((mapping) => mapping.path === refusal.mapping),
    );
    const digests = await digestsOf(context, driver, reader, own);
    rows.push(...own.map((refusal, i) => ({ refusal, digest: digests[i] })));
  }
  return recordRefusals(context.target, context.compiled.direction, rows);
}

/** Digests of what a reader reads for each key; of no rows too. Keys are compared typed: 1.0 and 1.00 may be one. */
async function digestsOf(
  context: SyncContext,
  driver: Driver,
  reader: Reader,
  refusals: readonly Refusal[],
): Promise<(string | undefined)[]> {
  if (refusals.length === 0) return [];
  const width = driver.key.length;
  const columns = driver.key.map((column, i) => ({ name: `c${i}`, type: column.baseType }));
  const source = sourceByKeys(driver, reader, context.compiled.sourceSchema, 1);
  const keys = driver.key.map((_, i) => `cf_k.c${i}`);
  const found = driver.key.map(({ name }) => `cf_s.${ident(name)}`);
  const sql = `select cf_k.n::text, md5(coalesce(string_agg(cf_s::text, ',' order by cf_s::text), ''))
from ${unnestRelation([...columns, { name: "n", type: "int" }], 1)} as cf_k
left join ${source} as cf_s on (${found.join(", ")}) = (${keys.join(", ")}) group by cf_k.n`;
  const values = [
    ...toColumnArrays(
      refusals.map((refusal) => refusal.key),
      width,
    ),
    refusals.map((_, i) => String(i)),
  ];
  try {
    const digests = new Map(await pairs(context, sql, values));
    return refusals.map((_, i) => digests.get(String(i)));
  } catch (error) {
    // A query or a key that fails: nothing says that the row is the same as before.
    if (!/^(21|22)/.test(sqlState(error) ?? "")) throw error;
    return refusals.map(() => undefined);
  }
}

async function pairs(
  context: SyncContext,
  sql: string,
  values: readonly unknown[],
): Promise<[string, string][]> {
  const rows = await runInSync(context, context.source, sql, values);
  return rows.map(([n, digest]) => [n ?? "", digest ?? ""]);
}
