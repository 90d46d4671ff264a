import { castExpression } from "./compile-checks.ts";
import type { Driver, Mapping } from "./mapping.ts";
import { ident, literal, relation } from "./quote.ts";
import { equal, imageDiffers, list, storedType } from "./sync-sql.ts";

/** The statements of a comparison. */

/** The lowest or highest target key among the rows a chunk makes: texts of the key columns. */
export type KeyBound = readonly string[];

/** The lowest and the highest key in `mapped`, in the target's own order, none if there are no rows. */
export function boundsSql(mapping: Mapping, mapped: string): string {
  const texts = mapping.key.map((name) => `format('%s', ${ident(name)})`).join(", ");
  const known = mapping.key.map((name) => `${ident(name)} is not null`).join(" and ");
  const end = (order: string) =>
    `(select ${texts} from (${mapped}) cf_m where ${known} order by ${mapping.key.map((name) => `${ident(name)}${order}`).join(", ")} limit 1)`;
  return `${end("")} union all ${end(" desc")}`;
}

/**
 * What each row of a join with a chunk's rows fulfils anyway, said in constants: so the planner knows from its statistics how
 * small a part of the table it is. Without, it joins in key order and reads the table from its start for every chunk.
 */
function within(mapping: Mapping, [low, high]: readonly KeyBound[]): string {
  if (low === undefined || high === undefined) return "";
  const tuple = `(${list(mapping.key, "cf_t.")})`;
  const values = (bound: KeyBound) =>
    `(${mapping.key
      .map((name, i) => {
        const column = mapping.columns.find((candidate) => candidate.name === name);
        return `${literal(bound[i] ?? "")}${column === undefined ? "" : `::${storedType(column)}`}`;
      })
      .join(", ")})`;
  return ` and ${tuple} >= ${values(low)} and ${tuple} <= ${values(high)}`;
}

/** Whether a chunk can have target rows that its source rows own and do not make. */
export function mayHaveExtra({ own, key, columns, where, rejects }: Mapping): boolean {
  if (own.kind === "none") return false;
  if (where !== undefined || rejects.length > 0 || own.columns.length !== key.length) return true;
  return !own.columns.every((owned) =>
    columns.some(
      (column) =>
        key.includes(owned.column) &&
        column.name === owned.column &&
        castExpression(column) === castExpression(owned),
    ),
  );
}

/** How many rows `mapped` has, and in how many of them the target differs. Nothing of rows that are there beside them. */
export function differSql(mapping: Mapping, mapped: string, bounds: readonly KeyBound[]): string {
  const table = relation(mapping.target.schema, mapping.target.name);
  const names = mapping.columns.map((column) => column.name);
  const firstKey = ident(mapping.key[0] ?? "");
  return `select count(*), count(*) filter (where cf_t.${firstKey} is null or ${imageDiffers(names, "cf_m.", "cf_t.")})
from (${mapped}) as cf_m left join ${table} as cf_t on ${equal(mapping.key, "cf_m", "cf_t")}${within(mapping, bounds)}`;
}

/**
 * Rows in which the target differs from `mapped`, as (kind, digest of what is expected, digest of what is found, source
 * key as text…). `mapped` and `owned` carry the source key. `extra` rows are those owned by a key in scope that the mapping does not make.
 */
export function compareSql(
  driver: Driver,
  mapping: Mapping,
  mapped: string,
  owned: string,
  { limit, bounds = [] }: { readonly limit: number; readonly bounds?: readonly KeyBound[] },
): string {
  const table = relation(mapping.target.schema, mapping.target.name);
  const names = mapping.columns.map((column) => column.name);
  const keys = (alias: string) =>
    driver.key.map((_, i) => `format('%s', ${alias}.cf_k${i})`).join(", ");
  const digest = (alias: string) => `md5(row(${list(names, `${alias}.`)})::text)`;
  const firstKey = ident(mapping.key[0] ?? "");
  const extra =
    mapping.own.kind === "none"
      ? ""
      : ` union all select 'extra', null, ${digest("cf_t")}, ${keys("cf_o")} from (${owned}) as cf_o join ${table} as cf_t on ${equal(
          mapping.own.columns.map((column) => column.column),
          "cf_t",
          "cf_o",
        )} where not exists (select 1 from cf_mapped where ${equal(mapping.key, "cf_mapped", "cf_t")})`;
  return `with cf_mapped as materialized (${mapped}), cf_diff as (
select case when cf_t.${firstKey} is null then 'missing' else 'different' end as kind, ${digest("cf_m")} as expected,
case when cf_t.${firstKey} is not null then ${digest("cf_t")} end as found, ${driver.key.map((_, i) => `format('%s', cf_m.cf_k${i}) as k${i}`).join(", ")}
from cf_mapped as cf_m left join ${table} as cf_t on ${equal(mapping.key, "cf_m", "cf_t")}${within(mapping, bounds)}
where cf_t.${firstKey} is null or ${imageDiffers(names, "cf_m.", "cf_t.")}${extra})
select (select count(*) from cf_mapped) as compared, cf_d.* from (select 1) cf_one left join (select * from cf_diff limit ${Math.round(limit)}) cf_d on true`;
}

/** Of rows that differ: source key as text…, then for each column whether it differs, what is expected and what is found. */
export function explainSql(driver: Driver, mapping: Mapping, mapped: string): string {
  const table = relation(mapping.target.schema, mapping.target.name);
  const columns = mapping.columns.map(({ name }) => {
    const [expected, found] = [`cf_m.${ident(name)}`, `cf_t.${ident(name)}`];
    return `(row(${expected})::record operator(pg_catalog.*<>) row(${found})::record)::text, ${expected}::text, ${found}::text`;
  });
  return `select ${[...driver.key.map((_, i) => `format('%s', cf_m.cf_k${i})`), ...columns].join(", ")}
from (${mapped}) as cf_m join ${table} as cf_t on ${equal(mapping.key, "cf_m", "cf_t")}
where ${imageDiffers(
    mapping.columns.map((column) => column.name),
    "cf_m.",
    "cf_t.",
  )}`;
}
