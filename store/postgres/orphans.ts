import type { CompiledDirection, Driver, Mapping } from "./mapping.ts";
import { ident, relation } from "./quote.ts";
import { stageRows } from "./stage.ts";
import { run } from "./statement.ts";
import type { SyncContext } from "./sync.ts";
import { ownedSelect, ownedValues } from "./sync-sql.ts";

/** A target table with every mapping that makes its rows, none of them shared. */
export interface OwnedTarget {
  readonly schema: string;
  readonly name: string;
  readonly key: readonly string[];
  readonly makers: readonly { readonly driver: Driver; readonly mapping: Mapping }[];
}

/** Tables whose every row belongs to some source key. Tables with `own: none` rows are left out: those are never removed. */
export function ownedTargets(compiled: CompiledDirection): OwnedTarget[] {
  const found = new Map<string, { driver: Driver; mapping: Mapping }[]>();
  for (const driver of compiled.drivers) {
    for (const mapping of driver.readers.flatMap((reader) => reader.mappings)) {
      found.set(mapping.target.name, [
        ...(found.get(mapping.target.name) ?? []),
        { driver, mapping },
      ]);
    }
  }
  return [...found.values()].flatMap((makers) => {
    const target = makers[0]?.mapping.target;
    if (target === undefined || makers.some(({ mapping }) => mapping.own.kind === "none"))
      return [];
    return [{ schema: target.schema, name: target.name, key: target.key, makers }];
  });
}

/**
 * Condition over alias `cf_t` that holds for rows no source key owns: an anti-join over the whole table against the
 * own values of every source key, which works for computed keys and whatever the collations are. Stages those values;
 * call inside a transaction of the target session.
 */
async function orphanCondition(context: SyncContext, target: OwnedTarget): Promise<string> {
  const conditions: string[] = [];
  for (const { driver, mapping } of target.makers) {
    if (mapping.own.kind === "none") continue;
    const own = mapping.own.columns;
    const owned = await ownedOfAllKeys(context, driver, mapping);
    const equal = own
      .map((column) => `cf_o.${ident(column.column)} = cf_t.${ident(column.column)}`)
      .join(" and ");
    conditions.push(`not exists (select 1 from (${owned}) cf_o where ${equal})`);
  }
  return conditions.join(" and ");
}

async function ownedOfAllKeys(
  context: SyncContext,
  driver: Driver,
  mapping: Mapping,
): Promise<string> {
  if (mapping.own.kind === "none") return "";
  const { compiled } = context;
  const names = driver.key.map((column) => ident(column.name)).join(", ");
  const keys = `(select ${names} from ${relation(compiled.sourceSchema, driver.name)})`;
  if (compiled.sameDatabase) return ownedValues(driver, mapping.own.columns, keys);
  if (compiled.direction === "forward") {
    const stage = `cf_keys_${driver.number}`;
    await stageRows(context, stage, driver.mapperKey, `select * from ${keys} cf_s`, false);
    return ownedValues(driver, mapping.own.columns, `(select * from pg_temp.${stage})`);
  }
  const mappings = driver.readers.flatMap((reader) => reader.mappings);
  const stage = `cf_all_${driver.number}_${mappings.indexOf(mapping)}`;
  const columns = mapping.own.columns.map((column) => ({
    name: column.column,
    type: column.targetBaseType,
  }));
  await stageRows(context, stage, columns, ownedSelect(driver, mapping.own.columns, keys), false);
  return `select * from pg_temp.${stage}`;
}

/** Keys (of the target table, as text) of rows that no source key owns. */
export async function findOrphans(
  context: SyncContext,
  target: OwnedTarget,
  limit: number,
): Promise<string[][]> {
  const condition = await orphanCondition(context, target);
  const key = target.key.map((name) => `cf_t.${ident(name)}`).join(", ");
  const rows = await run(
    context.target,
    `select ${key} from ${relation(target.schema, target.name)} cf_t where ${condition} limit ${Math.round(limit)}`,
  );
  return rows as string[][];
}

/**
 * Deletes the rows that no source key owns. Call inside a syncTransaction whose scope is every stripe of every driver
 * of the target, so that no sync can be adding rows meanwhile. Returns how many.
 */
export async function deleteOrphans(context: SyncContext, target: OwnedTarget): Promise<number> {
  const condition = await orphanCondition(context, target);
  const rows = await run(
    context.target,
    `with cf_gone as (delete from ${relation(target.schema, target.name)} cf_t where ${condition} returning 1) select count(*)::text from cf_gone`,
  );
  return Number(rows[0]?.[0] ?? 0);
}
