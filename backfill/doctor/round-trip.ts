import type { Plan } from "../../config/plan-types.ts";
import {
  type CompiledDirection,
  type Driver,
  type MappedColumn,
  type Mapping,
  type Reader,
} from "../../store/postgres/mapping.ts";
import { ident } from "../../store/postgres/quote.ts";
import { keyTexts, storedType } from "../../store/postgres/sync-sql.ts";
import { shownValue } from "../verify-examples.ts";
import type { Examination } from "./examine.ts";
import { count, exampleKey, exampleMessage, type Finding } from "./finding.ts";
import type { Lab } from "./lab.ts";
import { namePattern } from "./pattern.ts";
import { toldRejections, type Trial, tryMapping } from "./trial.ts";
import { unlessUnknown } from "./unknown.ts";

export interface RoundTrip {
  /** Old rows that were followed there and back. */
  readonly rows: number;
  readonly different: number;
  /** What could not be proven, and why. */
  readonly unknown: readonly { readonly mapping: string; readonly why: string }[];
}

export interface RoundTripInput {
  readonly plan: Plan;
  readonly forward: CompiledDirection;
  readonly reverse: CompiledDirection;
  /** The session that `forward` was examined in: its stand-ins bear the new tables' names. */
  readonly lab: Lab;
  readonly examined: Examination;
}

interface Part {
  readonly driver: Driver;
  readonly reader: Reader;
  readonly mapping: Mapping;
}

/**
 * reverse(forward(row)) = row: the reverse mappings run over what forward made, which stands under the new tables' names,
 * and what comes back is compared with the old rows as they were read. What cannot be proven is unknown, with the reason.
 */
export async function roundTrip(
  input: RoundTripInput,
): Promise<{ result: RoundTrip; findings: Finding[] }> {
  const findings: Finding[] = [];
  const unknown: { mapping: string; why: string }[] = [];
  let rows = 0;
  let different = 0;
  const parts = input.reverse.drivers.flatMap((driver) =>
    driver.readers.flatMap((reader) =>
      reader.mappings.map((mapping) => ({ driver, reader, mapping })),
    ),
  );
  for (const table of new Set(parts.map(({ mapping }) => mapping.target.name))) {
    const own = parts.filter(({ mapping }) => mapping.target.name === table);
    const why = own.map((part) => obstacle(input, part)).find((reason) => reason !== undefined);
    const before = findings.length;
    const compared =
      why === undefined
        ? await unlessUnknown(
            findings,
            own.map(({ mapping }) => mapping.path),
            () => compareTable(input, table, own, findings),
          )
        : undefined;
    if (compared === undefined) {
      const reason =
        why ?? findings.slice(before).map(({ what }) => what)[0] ?? "it fails on the way back";
      for (const { mapping } of own) {
        unknown.push({ mapping: mapping.path, why: reason });
        if (why !== undefined)
          findings.push({
            severity: "unknown",
            path: mapping.path,
            what: `the round trip is not proven: ${why}`,
          });
      }
      continue;
    }
    rows += compared.rows;
    different += compared.different;
  }
  return { result: { rows, different, unknown }, findings };
}

/** Why a mapping's way back cannot be followed from here; undefined if it can. */
function obstacle({ plan, examined }: RoundTripInput, part: Part): string | undefined {
  const { driver, reader, mapping } = part;
  const old = examined.drivers.get(mapping.target.name);
  if (old?.staged === undefined)
    return `no forward mapping reads ${mapping.target.name} as it is, so no row of it can be followed`;
  if (old.sample.total === 0) return `${mapping.target.name} has no rows to follow`;
  if (old.untried > 0) return `too many rows of ${mapping.target.name} fail on the way there`;
  if (!examined.standIns.has(driver.name))
    return `it reads ${driver.name}, which no forward mapping makes`;
  const sql = [
    reader.query ?? "",
    mapping.where ?? "",
    ...mapping.columns.map(({ expression }) => expression),
    ...mapping.rejects.map(({ condition }) => condition),
  ].join("\n");
  if (new RegExp(`(?<![\\w"])${namePattern(plan.new.schema)}\\s*\\.`, "i").test(sql))
    return `its SQL names the schema ${plan.new.schema}, so it reads the real tables instead of the rows that forward makes; leave the schema out`;
  const unmade = [...tablesIn(sql, driver, examined.open)];
  if (unmade.length > 0) return `${unmade.join(", ")} could not be made on the way there`;
  const failed = examined.trials.filter(({ untried }) => untried > 0);
  if (failed.some(({ mapping: made }) => made.target.name === driver.name))
    return `too many rows of ${driver.name} fail on the way there`;
  const partial = sampledBeside(examined, sql, part);
  if (partial.length > 0)
    return `it reads ${partial.join(", ")}, made from other tables of which only a sample was read; --all-rows proves it`;
  return undefined;
}

/** Tables the SQL reads that are made, in part, from another sampled table than the one compared: rows may be missing there. */
function sampledBeside(examined: Examination, sql: string, { driver, mapping }: Part): string[] {
  const names = tablesIn(sql, driver, examined.standIns.keys());
  return names.filter((name) =>
    examined.trials.some(
      (trial) =>
        trial.mapping.target.name === name &&
        trial.driver.name !== mapping.target.name &&
        name !== driver.name &&
        examined.drivers.get(trial.driver.name)?.sample.complete === false,
    ),
  );
}

/** Those of some tables that the SQL reads, or may read; the driving table with them. */
function tablesIn(sql: string, driver: Driver, tables: Iterable<string>): string[] {
  const all = [...tables];
  return all.filter(
    (name) =>
      name === driver.name ||
      new RegExp(`(?<![\\w"])${namePattern(name)}(?![\\w"])`, "i").test(sql),
  );
}

async function compareTable(
  input: RoundTripInput,
  table: string,
  parts: readonly Part[],
  findings: Finding[],
): Promise<{ rows: number; different: number } | undefined> {
  const trials: Trial[] = [];
  for (const part of parts) {
    const trial = await back(input, part);
    trials.push(trial);
    for (const { part: where, error, keys } of trial.failures)
      findings.push({
        severity: "error",
        path: `${part.mapping.path}${where}`,
        what: `the round trip fails for ${count(keys.length, "row")} that forward makes: ${exampleMessage(input.plan.verify, error)}`,
        rows: keys.length,
        example: {
          key: exampleKey(input.plan.verify, part.driver.name, part.driver.key, keys[0] ?? []),
        },
      });
    for (const { reason, rows, key } of toldRejections(trial, input.plan.verify))
      findings.push({
        severity: "warning",
        path: `${part.mapping.path}${part.reader.transform === undefined ? `.reject.${reason}` : ".transform"}`,
        what: `${count(rows, "row")} that forward makes are rejected on the way back: ${reason}`,
        rows,
        example: { key: exampleKey(input.plan.verify, part.driver.name, part.driver.key, key) },
      });
    if (trial.untried > 0) return undefined;
  }
  return compareBack(input, table, trials, findings);
}

/** One reverse mapping over the stand-ins. */
async function back({ lab, examined }: RoundTripInput, part: Part): Promise<Trial> {
  const { driver, reader } = part;
  const names = reader.columns.map(({ name }) => `cf_q.${ident(name)}`).join(", ");
  const base =
    reader.query === undefined
      ? (examined.standIns.get(driver.name) ?? ident(driver.name))
      : `(${reader.query}\n)`;
  const staged = await lab.keep(`select ${names} from ${base} as cf_q`, reader.columns);
  return tryMapping(lab, part, staged);
}

/** The type both rows are compared in: as stored, where that type is known on the new server under its own name. */
function comparedType(column: MappedColumn): string {
  if (column.castType === undefined) return "text";
  return column.castType === column.targetBaseType ? storedType(column) : column.castType;
}

async function compareBack(
  { plan, lab, examined }: RoundTripInput,
  table: string,
  trials: readonly Trial[],
  findings: Finding[],
): Promise<{ rows: number; different: number } | undefined> {
  const old = examined.drivers.get(table);
  const [first, ...rest] = trials;
  if (old?.staged === undefined || first === undefined) return undefined;
  const columns = first.mapping.columns.filter(({ name }) =>
    rest.every(({ mapping }) => mapping.columns.some((column) => column.name === name)),
  );
  const cast = (alias: string, column: MappedColumn) =>
    `${alias}.${ident(column.name)}::${comparedType(column)}`;
  const keys = columns.filter(({ name }) => old.driver.table.key.includes(name));
  const came = trials.map(
    ({ made }) => `select ${columns.map(({ name }) => ident(name)).join(", ")} from ${made}`,
  );
  const keyOfOld = old.driver.key.map(({ name }) => `cf_o.${ident(name)}`);
  const leftOut = keyTexts(old.driver).map(({ name }, i) => `cf_l.${name} = ${keyOfOld[i]}::text`);
  const carried =
    old.leftOut.length === 0
      ? "true"
      : `not exists (select from (${old.leftOut.join(" union all ")}) cf_l where ${leftOut.join(" and ")})`;
  const same = keys
    .map((column) => `${cast("cf_o", column)} = ${cast("cf_b", column)}`)
    .join(" and ");
  const differs = columns.map(
    (column) =>
      `row(${cast("cf_o", column)})::record operator(pg_catalog.*<>) row(${cast("cf_b", column)})::record`,
  );
  const pairs = `from ${old.staged.table} cf_o left join (select true as cf_there, cf_m.* from (${came.join(" union all ")}) cf_m) cf_b on ${same} where ${carried}`;
  const path = [...new Set(trials.map(({ mapping }) => mapping.path))].join(", ");
  const [totals] = await lab.select(
    `select count(*)::text, count(*) filter (where cf_there is null)::text,
       count(*) filter (where cf_there and (${differs.join(" or ")}))::text,
       ${differs.map((sql) => `count(*) filter (where cf_there and ${sql})::text`).join(", ")} ${pairs}`,
  );
  const [rows, missing, different, ...perColumn] = (totals ?? []).map(Number);
  const example = async (condition: string) => {
    const values = columns.map(
      (column, i) =>
        `(${differs[i]})::text, ${cast("cf_o", column)}::text, ${cast("cf_b", column)}::text`,
    );
    const [row] = await lab.select(
      `select ${keyOfOld.map((key) => `${key}::text`).join(", ")}, ${values.join(", ")} ${pairs} and ${condition} order by cf_o.cf_n limit 1`,
    );
    return row ?? [];
  };
  if ((missing ?? 0) > 0) {
    const row = await example("cf_there is null");
    findings.push({
      severity: "error",
      path,
      what: `${count(missing ?? 0, "row")} of ${table} do not come back: what forward makes of them, reverse does not make into them again`,
      rows: missing ?? 0,
      example: { key: exampleKey(plan.verify, table, old.driver.key, row) },
    });
  }
  if ((different ?? 0) > 0) {
    const row = await example(`cf_there and (${differs.join(" or ")})`);
    const names = columns.flatMap(({ name }, i) =>
      (perColumn[i] ?? 0) > 0 ? [`${name} in ${perColumn[i]}`] : [],
    );
    const shown = columns.flatMap(
      ({ name }, i): [string, { expected: string | null; found: string | null }][] => {
        const at = old.driver.key.length + 3 * i;
        return row[at] === "true"
          ? [
              [
                name,
                {
                  expected: shownValue(plan.verify, table, name, row[at + 1] ?? null),
                  found: shownValue(plan.verify, table, name, row[at + 2] ?? null),
                },
              ],
            ]
          : [];
      },
    );
    findings.push({
      severity: "error",
      path,
      what: `${count(different ?? 0, "row")} of ${table} come back different (${names.join(", ")}): going back would change them`,
      rows: different ?? 0,
      example: {
        key: exampleKey(plan.verify, table, old.driver.key, row),
        columns: Object.fromEntries(shown),
      },
    });
  }
  const extra = old.sample.complete ? await extraRows(lab, old.staged.table, came, keys, cast) : 0;
  if (extra > 0)
    findings.push({
      severity: "error",
      path,
      what: `${count(extra, "row")} come back to ${table} that are not there: reverse makes rows that the old side does not have`,
      rows: extra,
    });
  return { rows: rows ?? 0, different: (missing ?? 0) + (different ?? 0) + extra };
}

/** Rows made for the old table that it does not have, and rows made twice. */
async function extraRows(
  lab: Lab,
  staged: string,
  came: readonly string[],
  keys: readonly MappedColumn[],
  cast: (alias: string, column: MappedColumn) => string,
): Promise<number> {
  const list = keys.map((column) => cast("cf_b", column));
  const same = keys
    .map((column) => `${cast("cf_o", column)} = ${cast("cf_b", column)}`)
    .join(" and ");
  const [row] = await lab.select(
    `select ((select count(*) from (${came.join(" union all ")}) cf_b where not exists (select from ${staged} cf_o where ${same}))
       + coalesce((select sum(n - 1) from (select count(*) as n from (${came.join(" union all ")}) cf_b group by ${list.join(", ")}) g), 0))::text`,
  );
  return Number(row?.[0]);
}
