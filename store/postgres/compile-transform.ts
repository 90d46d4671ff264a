import type { PlanIssue } from "../../config/errors.ts";
import type { MappingPlan } from "../../config/plan-types.ts";
import type { Column, Table } from "./catalog.ts";
import { checkMapping } from "./compile-checks.ts";
import type { CompileInput } from "./compile-input.ts";
import { resolveOwn, targetTable } from "./compile-mapping.ts";
import {
  aliasOf,
  type Driver,
  type Mapping,
  type ReaderColumn,
  type ReaderTransform,
} from "./mapping.ts";
import { ident } from "./quote.ts";
import { loadTransform, type TransformModule } from "./transform.ts";

/** A mapping whose rows a module makes, and what its reader needs for that. */
export interface CompiledTransform {
  readonly mapping: Mapping;
  readonly transform: ReaderTransform;
}

/**
 * Resolves a mapping with `transform`: what the module makes becomes a relation of texts beside the source key, and from
 * there on it is a mapping like any other. The columns of `own` are made from the key and never by the module, so no row
 * can belong to another source row than the one it was made of.
 */
export async function compileTransform(
  plan: MappingPlan & { readonly transform: string },
  driver: Driver,
  columns: readonly ReaderColumn[],
  input: CompileInput,
  issues: PlanIssue[],
): Promise<CompiledTransform | undefined> {
  const path = `${plan.path}.transform`;
  const target = targetTable(plan, input, issues);
  const module = await loadTransform(plan.transform, path, issues);
  if (target === undefined || module === undefined) return undefined;
  const before = issues.length;
  const owned = ownedColumns(plan, driver, target);
  for (const { name, generated } of target.columns)
    if (generated && owned.has(name))
      issues.push({
        path: `${plan.path}.own.${name}`,
        message: `${name} is a generated column; with a transform expected columns that can be written, because they are filled in`,
      });
  const made = madeColumns(module, target, owned, path, issues);
  refuseMissing(module, target, new Set([...owned.keys(), ...made]), path, issues);
  if (issues.length > before) return undefined;
  const raw = [...made.map((_, i) => ({ name: rawName(i), type: "text" })), ...driver.mapperKey];
  const kept = target.columns.filter(
    ({ name, generated }) => !generated && (owned.has(name) || made.includes(name)),
  );
  const castTypes = await input.mappingTypes.namesOf(
    kept.map(({ baseType }) => baseType),
    target.schema,
  );
  const bare: Mapping = {
    path: plan.path,
    target,
    columns: kept.map((column, i) => ({
      name: column.name,
      expression:
        owned.get(column.name) ?? `${aliasOf(driver)}.${ident(rawName(made.indexOf(column.name)))}`,
      castType: castTypes[i],
      targetBaseType: column.baseType,
      targetType: column.type,
      updatable: !target.key.includes(column.name) && column.identity !== "always",
    })),
    key: target.key,
    own: { kind: "none" },
    where: undefined,
    rejects: [],
  };
  const own = await resolveOwn(plan, driver, columns, bare, input, issues);
  if (own === undefined) return undefined;
  if (raw.length > MOST_COLUMNS)
    issues.push({
      path,
      message: `makes ${made.length} columns of ${target.name}; with the key of ${driver.name} that travels beside them these are ${raw.length} columns, and a row can have at most ${MOST_COLUMNS}`,
    });
  const typed: PlanIssue[] = [];
  await checkMapping(input.mappingClient, driver, raw, bare, typed);
  // What can fail here is an `own` that does not have its column's type.
  issues.push(
    ...typed.map((issue) => ({
      ...issue,
      path: issue.path.replace(`${plan.path}.set.`, `${plan.path}.own.`),
    })),
  );
  if (issues.length > before) return undefined;
  return {
    mapping: { ...bare, own },
    transform: { file: module.file, made, run: module.run, columns: raw },
  };
}

/** Postgres' own limit of a table. */
const MOST_COLUMNS = 1_600;

const rawName = (i: number) => `cf_m${i}`;

/** What the plan's `own` says, or columns of the target's key that have the name of one of the source's. */
function ownedColumns(
  plan: MappingPlan,
  driver: Driver,
  target: Table,
): ReadonlyMap<string, string> {
  if (plan.own === "none") return new Map();
  if (plan.own !== undefined) return plan.own;
  return new Map(
    target.key
      .filter((name) => driver.table.key.includes(name))
      .map((name) => [name, `${aliasOf(driver)}.${ident(name)}`]),
  );
}

function madeColumns(
  module: TransformModule,
  target: Table,
  owned: ReadonlyMap<string, string>,
  path: string,
  issues: PlanIssue[],
): string[] {
  const possible = target.columns
    .filter((column) => !column.generated && !owned.has(column.name))
    .map((column) => column.name);
  const wrong = (module.columns ?? []).filter((name) => !possible.includes(name));
  if (wrong.length > 0)
    issues.push({
      path,
      message: `${module.file} says that it makes ${wrong.join(", ")}; of ${target.name} it can make ${possible.join(", ") || "nothing"}${owned.size === 0 ? "" : `, and \`own\` gives ${[...owned.keys()].join(", ")}`}`,
    });
  return [...new Set(module.columns ?? possible)];
}

/** Columns without which no row can be written. */
function refuseMissing(
  module: TransformModule,
  target: Table,
  given: ReadonlySet<string>,
  path: string,
  issues: PlanIssue[],
): void {
  const needed = ({ name, generated, notNull, hasDefault, identity }: Column) =>
    !generated &&
    !given.has(name) &&
    (target.key.includes(name) || (notNull && !hasDefault && identity === undefined));
  const missing = target.columns.filter(needed).map((column) => column.name);
  if (missing.length > 0)
    issues.push({
      path,
      message: `${target.name}.${missing.join(", ")} must have a value: name it in the \`columns\` that ${module.file} exports`,
    });
}
