import type pg from "pg";
import type { PlanIssue } from "../../config/errors.ts";
import type { MappingPlan, MappingSet } from "../../config/plan-types.ts";
import { type Catalog, columnOf, type Table } from "./catalog.ts";
import type { CompiledDirection } from "./mapping.ts";
import { ident, relation } from "./quote.ts";
import { run } from "./statement.ts";

/**
 * The source's catalog with the keys that the plan gives to tables whose own indexes tell no rows apart. Columns must be
 * not null: a change of a row whose key has a null could not be followed.
 */
export function withPlanKeys(
  catalog: Catalog,
  mappings: readonly MappingPlan[],
  issues: PlanIssue[],
): Catalog {
  const keyed = new Map(catalog);
  const given = new Map<string, string>();
  for (const { path, from } of mappings) {
    const table = catalog.get(from.table);
    if (from.key === undefined || table === undefined) continue;
    const text = from.key.join(", ");
    const other = given.get(table.name) ?? text;
    const why =
      other === text
        ? whyNot(table, from.key)
        : `differs from (${other}), which another mapping gives ${table.name}`;
    if (why !== undefined) issues.push({ path: `${path}.from.key`, message: why });
    given.set(table.name, other);
    keyed.set(table.name, { ...table, key: from.key });
  }
  return keyed;
}

function whyNot(table: Table, key: readonly string[]): string | undefined {
  if (table.key.length > 0)
    return `table ${table.name} has a key of its own, (${table.key.join(", ")}): leave \`key\` out`;
  const missing = key.filter((name) => columnOf(table, name) === undefined);
  if (missing.length > 0)
    return `${table.name} has no column ${missing.join(", ")}; it has: ${table.columns.map((column) => column.name).join(", ")}`;
  if (new Set(key).size < key.length) return `names a column twice: ${key.join(", ")}`;
  const nullable = key.filter((name) => columnOf(table, name)?.notNull !== true);
  if (nullable.length === 0) return undefined;
  const set = nullable.map((name) => `alter column ${ident(name)} set not null`).join(", ");
  return `column ${nullable.join(", ")} of ${table.name} may be null, and such rows could not be told apart: alter table ${ident(table.name)} ${set}`;
}

/** ms; one pass over a table. */
const LOOK_MS = 600_000;

/** Looks whether the rows of such tables are told apart. Reads them whole, once each. `client`: a session on the source. */
export async function duplicateKeys(
  client: pg.ClientBase,
  compiled: CompiledDirection,
  set: MappingSet | undefined,
): Promise<PlanIssue[]> {
  const mappings = set?.kind === "tables" ? set.mappings : [];
  const issues: PlanIssue[] = [];
  for (const driver of compiled.drivers) {
    const plan = mappings.find(({ from }) => from.table === driver.name && from.key !== undefined);
    if (plan === undefined) continue;
    const key = driver.table.key.map(ident).join(", ");
    await run(client, `set statement_timeout = ${LOOK_MS}`);
    const [row] = await run(
      client,
      `select count(*)::text, ${key} from ${relation(compiled.sourceSchema, driver.name)} group by ${key} having count(*) > 1 limit 1`,
    );
    await run(client, "reset statement_timeout");
    if (row === undefined) continue;
    const [count, ...values] = row;
    issues.push({
      path: `${plan.path}.from.key`,
      message: `does not tell the rows of ${driver.name} apart: ${count} rows have (${driver.table.key.join(", ")}) = (${values.join(", ")}). Name more columns, or remove the duplicates`,
    });
  }
  return issues;
}
