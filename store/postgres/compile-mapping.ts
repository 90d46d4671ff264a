import type { PlanIssue } from "../../config/errors.ts";
import type { MappingPlan } from "../../config/plan-types.ts";
import { targetOf } from "../../config/words.ts";
import { columnOf, type Table } from "./catalog.ts";
import type { CompileInput } from "./compile-input.ts";
import { checkMapping, isKeyOnly } from "./compile-checks.ts";
import {
  aliasOf,
  bareColumn,
  type Driver,
  type MappedColumn,
  type Mapping,
  type Own,
  type ReaderColumn,
} from "./mapping.ts";
import { ident } from "./quote.ts";

/** The table that a mapping makes, if rows of it can be written. */
export function targetTable(
  plan: MappingPlan,
  input: CompileInput,
  issues: PlanIssue[],
): Table | undefined {
  const side = targetOf(input.direction);
  const target = input.targetCatalog.get(plan.target);
  if (target === undefined) {
    issues.push({
      path: plan.path,
      message: `table ${plan.target} not found in schema ${input.plan[side].schema} of the ${side} database; it has: ${[...input.targetCatalog.keys()].join(", ") || "no tables"}`,
    });
    return undefined;
  }
  if (target.heirs.length > 0) {
    issues.push({
      path: plan.path,
      message: `table ${target.name} has tables that inherit from it (${target.heirs.join(", ")}): what is deleted from it would be deleted from them. Map those tables, each by itself, or make it a partitioned table`,
    });
    return undefined;
  }
  if (target.key.length === 0) {
    issues.push({
      path: plan.path,
      message: `table ${target.name} has neither a primary key nor a unique index over not-null columns, and rows are written by that key: create a unique index over columns that are not null`,
    });
    return undefined;
  }
  return target;
}

/** Resolves one mapping of the plan against its target; what does not hold goes to `issues`, and undefined comes back. */
export async function compileMapping(
  plan: MappingPlan,
  driver: Driver,
  columns: readonly ReaderColumn[],
  input: CompileInput,
  issues: PlanIssue[],
): Promise<Mapping | undefined> {
  const target = targetTable(plan, input, issues);
  if (target === undefined) return undefined;
  const before = issues.length;
  for (const name of plan.set.keys()) {
    const column = columnOf(target, name);
    if (column === undefined) {
      issues.push({
        path: `${plan.path}.set.${name}`,
        message: `${target.name} has no column ${name}; it has: ${target.columns.map((c) => c.name).join(", ")}`,
      });
    } else if (column.generated) {
      issues.push({
        path: `${plan.path}.set.${name}`,
        message: `${name} is a generated column: the database computes it`,
      });
    }
  }
  const mapped = await mapColumns(plan, driver, target, columns, input, issues);
  if (issues.length > before) return undefined;
  const bare: Mapping = {
    path: plan.path,
    target,
    columns: mapped,
    key: target.key,
    own: { kind: "none" },
    where: plan.where,
    rejects: [...plan.reject].map(([reason, condition]) => ({ reason, condition })),
  };
  await checkMapping(input.mappingClient, driver, columns, bare, issues);
  if (issues.length > before) return undefined;
  const own = await resolveOwn(plan, driver, columns, bare, input, issues);
  return own === undefined ? undefined : { ...bare, own };
}

async function mapColumns(
  plan: MappingPlan,
  driver: Driver,
  target: Table,
  columns: readonly ReaderColumn[],
  input: CompileInput,
  issues: PlanIssue[],
): Promise<MappedColumn[]> {
  const mapped: MappedColumn[] = [];
  const castTypes = await input.mappingTypes.namesOf(
    target.columns.map(({ baseType }) => baseType),
    target.schema,
  );
  for (const [i, column] of target.columns.entries()) {
    if (column.generated) continue;
    const carried = columns.some((candidate) => candidate.name === column.name);
    const expression =
      plan.set.get(column.name) ??
      (carried ? `${aliasOf(driver)}.${ident(column.name)}` : undefined);
    if (expression === undefined) {
      const needed =
        target.key.includes(column.name) ||
        (column.notNull && !column.hasDefault && column.identity === undefined);
      if (needed) {
        issues.push({
          path: `${plan.path}.set.${column.name}`,
          message: `${target.name}.${column.name} must have a value: ${driver.name} has no column of that name, and \`set\` does not make it`,
        });
      }
      continue;
    }
    mapped.push({
      name: column.name,
      expression,
      castType: castTypes[i],
      targetBaseType: column.baseType,
      targetType: column.type,
      updatable: !target.key.includes(column.name) && column.identity !== "always",
    });
  }
  return mapped;
}

/** Which target rows belong to a source key. */
export async function resolveOwn(
  plan: MappingPlan,
  driver: Driver,
  columns: readonly ReaderColumn[],
  mapping: Mapping,
  input: CompileInput,
  issues: PlanIssue[],
): Promise<Own | undefined> {
  if (plan.own === "none") return { kind: "none" };
  const wanted =
    plan.own ??
    new Map(
      mapping.columns
        .filter((c) => mapping.key.includes(c.name))
        .map((c) => [c.name, c.expression]),
    );
  const before = issues.length;
  const own = [];
  for (const [name, expression] of wanted) {
    const column = columnOf(mapping.target, name);
    if (column === undefined) {
      issues.push({
        path: `${plan.path}.own.${name}`,
        message: `${mapping.target.name} has no column ${name}`,
      });
      continue;
    }
    const why = await isKeyOnly(input.mappingClient, driver, columns, expression);
    if (why !== true) {
      issues.push(
        plan.own === undefined
          ? {
              path: plan.path,
              message: `needs \`own\`: ${name}, part of ${mapping.target.name}'s key, does not follow from the key (${driver.table.key.join(", ")}) of ${driver.name} alone. Say which target columns tell the rows of one ${driver.name} row (own: { column: SQL over its key }), or \`own: none\` for rows shared by many`,
            }
          : {
              path: `${plan.path}.own.${name}`,
              message: `must be SQL over the key (${driver.table.key.join(", ")}) of ${driver.name}: ${why}`,
            },
      );
      continue;
    }
    const [castType] = await input.mappingTypes.namesOf([column.baseType], mapping.target.schema);
    own.push({
      column: name,
      expression,
      castType,
      targetBaseType: column.baseType,
      keyPosition: keyPositionOf(expression, driver),
    });
  }
  return issues.length > before ? undefined : { kind: "columns", columns: own };
}

/** The key column an expression consists of, if it is nothing but one. */
function keyPositionOf(expression: string, driver: Driver): number | undefined {
  const position = driver.table.key.indexOf(bareColumn(expression, driver) ?? "");
  return position === -1 ? undefined : position;
}

const CONSTANT = /^\(?\s*('([^']|'')*'|-?\d+(\.\d+)?|true|false)\s*\)?(::[\w ".]+)?$/i;

/**
 * Mappings of a list that share a target differ in a constant (or in `own`): the constant becomes part of what a
 * source key owns, or the sync of one mapping would delete the rows of another.
 */
export function withDiscriminators(drivers: readonly Driver[]): Driver[] {
  const makers = drivers.flatMap((driver) => driver.readers.flatMap((reader) => reader.mappings));
  const constantOf = (mapping: Mapping, column: string) => {
    const expression = mapping.columns
      .find((candidate) => candidate.name === column)
      ?.expression.trim();
    return expression !== undefined && CONSTANT.test(expression) ? expression : undefined;
  };
  const extend = (mapping: Mapping): Mapping => {
    const siblings = makers.filter((other) => other.target.name === mapping.target.name);
    if (siblings.length < 2 || mapping.own.kind === "none") return mapping;
    const own = mapping.own.columns;
    const added = mapping.columns.filter((column) => {
      const constants = siblings.map((sibling) => constantOf(sibling, column.name));
      return (
        !own.some((o) => o.column === column.name) &&
        !constants.includes(undefined) &&
        new Set(constants).size > 1
      );
    });
    const columns = added.map(({ name, expression, castType, targetBaseType }) => ({
      column: name,
      expression,
      castType,
      targetBaseType,
      keyPosition: undefined,
    }));
    return { ...mapping, own: { kind: "columns", columns: [...own, ...columns] } };
  };
  return drivers.map((driver) => ({
    ...driver,
    readers: driver.readers.map((reader) => ({ ...reader, mappings: reader.mappings.map(extend) })),
  }));
}
