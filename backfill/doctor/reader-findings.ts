import type { Driver, Reader } from "../../store/postgres/mapping.ts";
import { keyOf } from "../../store/postgres/key-scope.ts";
import { ident } from "../../store/postgres/quote.ts";
import { count, exampleKey, exampleMessage, type Finding, notTried } from "./finding.ts";
import { rowsTemplate } from "./fixes.ts";
import type { Staged } from "./lab.ts";
import type { ExamineInput } from "./try-rows.ts";

/** Rows that do not even arrive: an enum without their label, an encoding without their characters. */
export function lostRows(
  { plan, compiled }: ExamineInput,
  driver: Driver,
  reader: Reader,
  { lost, skipped }: Staged,
): Finding[] {
  const [first] = lost;
  if (first === undefined) return [];
  const broken = reader.mappings.map(({ path }): Finding => ({
    severity: "error",
    path,
    what: `${skipped > 0 ? "at least " : ""}${count(lost.length, "row")} of ${driver.name} cannot be carried to the new database as they are`,
    rows: lost.length,
    example: {
      key: exampleKey(plan.verify, driver.name, driver.key, keyOf(driver, reader, first.row)),
      message: exampleMessage(plan.verify, first.error),
    },
    fix: rowsTemplate(compiled, driver, {}),
  }));
  return skipped === 0
    ? broken
    : [...broken, ...reader.mappings.map(({ path }) => notTried(path, skipped))];
}

/** Sync refuses a `query` that yields two rows for one driving key. */
export async function repeatedKeys(
  { plan, mapper }: ExamineInput,
  driver: Driver,
  reader: Reader,
  { table }: Staged,
): Promise<Finding[]> {
  if (reader.query === undefined) return [];
  const names = driver.key.map(({ name }) => ident(name)).join(", ");
  const texts = driver.key.map(({ name }) => `${ident(name)}::text`).join(", ");
  const [row] = await mapper.select(
    `select count(*) over ()::text, ${texts} from ${table} group by ${names} having count(*) > 1 order by min(cf_n) limit 1`,
  );
  if (row === undefined) return [];
  const [n, ...key] = row;
  return reader.mappings.map(({ path }) => ({
    severity: "error",
    path: `${path}.from.query`,
    what: `the query yields more than one row for ${count(Number(n), "key")} of ${driver.name}`,
    rows: Number(n),
    example: { key: exampleKey(plan.verify, driver.name, driver.key, key) },
    fix: {
      where: "plan",
      text: "aggregate, or join on a unique key, so that each row of the driving table is there once",
      destructive: false,
    },
  }));
}
