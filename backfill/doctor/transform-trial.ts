import { isDeepStrictEqual } from "node:util";
import { keyOf } from "../../store/postgres/key-scope.ts";
import type { Driver, Reader, ReaderTransform } from "../../store/postgres/mapping.ts";
import { ident } from "../../store/postgres/quote.ts";
import { run, type TextRow } from "../../store/postgres/statement.ts";
import { keyTexts, toColumnArrays, unnestRelation } from "../../store/postgres/sync-sql.ts";
import { type Outcome, TransformFailed, transformRow } from "../../store/postgres/transform.ts";
import type { Lab, Staged } from "./lab.ts";

/** Staged rows that are in this process at a time. */
const ROWS_AT_ONCE = 500;

/** What a module made of staged rows: rows in `table`, under the numbers of the rows they come from. */
export interface Transformed {
  readonly table: string;
  readonly failures: readonly { readonly key: TextRow; readonly error: Error }[];
}

/** Calls a module for each staged row. What it rejects goes to the table `rejected`. */
export async function transformStaged(
  lab: Lab,
  { driver, reader, transform }: { driver: Driver; reader: Reader; transform: ReaderTransform },
  staged: Staged,
  rejected: string,
): Promise<Transformed> {
  const table = await lab.empty(transform.columns);
  const names = reader.columns.map(({ name }) => name);
  const failures: { key: TextRow; error: Error }[] = [];
  await lab.indexRows(staged.table);
  for (let from = 1; from <= staged.last; from += ROWS_AT_ONCE) {
    const rows = await lab.select(
      `select cf_n, ${names.map(ident).join(", ")} from ${staged.table} where cf_n between ${from} and ${from + ROWS_AT_ONCE - 1} order by cf_n`,
    );
    const made: TextRow[] = [];
    const left: TextRow[] = [];
    for (const [n = null, ...row] of rows) {
      const key = keyOf(driver, reader, row);
      const outcome = called(transform, names, row);
      if (outcome.kind === "rows") made.push(...outcome.rows.map((one) => [...one, ...key, n]));
      if (outcome.kind === "rejected") left.push([...key, outcome.reason, n]);
      if (outcome.kind === "failed")
        failures.push({ key, error: new TransformFailed(outcome.reason) });
    }
    await insert(lab, table, transform.columns, made);
    const reasons = [...keyTexts(driver), { name: "cf_reason", type: "text" }];
    await insert(lab, rejected, reasons, left);
  }
  await lab.indexRows(table);
  return { table, failures };
}

/** Twice: what the copy makes, the comparison has to make again. */
function called(transform: ReaderTransform, names: readonly string[], row: TextRow): Outcome {
  const outcome = transformRow(transform, names, row);
  return isDeepStrictEqual(outcome, transformRow(transform, names, row))
    ? outcome
    : {
        kind: "failed",
        reason: `${transform.file} gives one answer for a row and then another: it may look at nothing but the row`,
      };
}

async function insert(
  lab: Lab,
  table: string,
  columns: readonly { readonly name: string; readonly type: string }[],
  rows: readonly TextRow[],
): Promise<void> {
  const all = [...columns, { name: "cf_n", type: "bigint" }];
  const names = all.map(({ name }) => ident(name)).join(", ");
  await lab.readOnly(() =>
    run(
      lab.client,
      `insert into ${table} (${names}) overriding system value select * from ${unnestRelation(all, 1)} cf_u`,
      toColumnArrays(rows, all.length),
    ),
  );
}
