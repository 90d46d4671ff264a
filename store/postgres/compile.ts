import { messageOf, PlanError, type PlanIssue } from "../../config/errors.ts";
import type { MappingPlan, MappingSet, Plan } from "../../config/plan-types.ts";
import { type Direction, sourceOf, targetOf } from "../../config/words.ts";
import { type Catalog, type Column, foreignKeyOrder, keyColumns, type Table } from "./catalog.ts";
import { describeQuery } from "./compile-checks.ts";
import type { CompileInput, CompileRequest } from "./compile-input.ts";
import { compileMapping, withDiscriminators } from "./compile-mapping.ts";
import { compileTransform } from "./compile-transform.ts";
import { installedTables } from "./logged-tables.ts";
import {
  type CompiledDirection,
  columnsNamedIn,
  type Driver,
  type LoggedTable,
  type Mapping,
  type Reader,
  type ReaderColumn,
} from "./mapping.ts";
import { withPlanKeys } from "./plan-keys.ts";
import { ServerTypes } from "./server-types.ts";
import { isFaultOfStatement } from "./session.ts";

/** Both sides live in one database: server, port and database name are the same. */
export function isSameDatabase(plan: Plan): boolean {
  const place = (url: string) => {
    const { hostname, port, pathname } = new URL(url);
    return `${hostname}:${port || "5432"}${pathname}`;
  };
  return place(plan.old.database) === place(plan.new.database);
}

/**
 * Resolves the mappings of a direction against both databases: every table, column and type exists, every expression
 * is valid SQL where it will run. Changes nothing. Throws PlanError with all problems at once.
 */
export async function compileDirection(request: CompileRequest): Promise<CompiledDirection> {
  const { plan, direction } = request;
  const given = {
    ...request,
    sourceTypes: new ServerTypes(request.sourceClient),
    mappingTypes: new ServerTypes(request.mappingClient),
  };
  const set = direction === "forward" ? plan.forward : plan.reverse;
  if (set === undefined)
    throw new PlanError(plan.file, [{ path: direction, message: "is not in the plan" }]);
  const issues: PlanIssue[] = [];
  const mappings = expandSet(set, direction, given, issues);
  const input = {
    ...given,
    sourceCatalog: withPlanKeys(given.sourceCatalog, mappings, issues),
  };
  // What is wrong with a key makes everything after it look wrong.
  if (issues.length > 0) throw new PlanError(plan.file, issues);
  const source = sourceOf(direction);
  const target = targetOf(direction);
  const tables = await loggedTables(mappings, input, issues);
  const drivers: Driver[] = [];
  for (const name of new Set(mappings.map((mapping) => mapping.from.table))) {
    const driver = await compileDriver(name, mappings, tables, input, issues);
    if (driver !== undefined) drivers.push(driver);
  }
  if (issues.length > 0) throw new PlanError(plan.file, issues);
  const distinguished = withDiscriminators(drivers);
  return {
    direction,
    source,
    target,
    sourceSchema: plan[source].schema,
    targetSchema: plan[target].schema,
    sameDatabase: isSameDatabase(plan),
    drivers: orderDrivers(distinguished, input.targetCatalog),
    logged: tables,
  };
}

/** Tables of each side that any mapping touches: they get guards. Leaves of partitioned tables not included. */
export function mappedTables(directions: readonly CompiledDirection[]): {
  old: Table[];
  new: Table[];
} {
  const found = { old: new Map<string, Table>(), new: new Map<string, Table>() };
  for (const direction of directions) {
    for (const logged of direction.logged) found[direction.source].set(logged.name, logged.table);
    for (const driver of direction.drivers) {
      for (const reader of driver.readers) {
        for (const mapping of reader.mappings)
          found[direction.target].set(mapping.target.name, mapping.target);
      }
    }
  }
  return { old: [...found.old.values()], new: [...found.new.values()] };
}

function expandSet(
  set: MappingSet,
  direction: Direction,
  input: CompileInput,
  issues: PlanIssue[],
): readonly MappingPlan[] {
  if (set.kind === "tables") return set.mappings;
  if (input.sourceCatalog.size === 0) {
    issues.push({
      path: direction,
      message: "identity carries every table of the source schema, and it has none",
    });
  }
  return [...input.sourceCatalog.keys()].map((name) => ({
    path: `${direction}.${name}`,
    target: name,
    from: { table: name, query: undefined, also: new Map() },
    where: undefined,
    own: undefined,
    set: new Map(),
    reject: new Map(),
  }));
}

/**
 * Numbers are given in alphabetical order, so that every process arrives at the same ones; a table that was installed keeps
 * its own when the plan is edited: log, chunks and locks know it by that.
 */
async function loggedTables(
  mappings: readonly MappingPlan[],
  input: CompileInput,
  issues: PlanIssue[],
): Promise<LoggedTable[]> {
  const names = new Set<string>();
  for (const mapping of mappings) {
    names.add(mapping.from.table);
    for (const table of mapping.from.also.keys()) names.add(table);
  }
  const installed = await installedTables(input.sourceClient, sourceOf(input.direction));
  let last = Math.max(0, ...[...installed.values()].map(({ number }) => number));
  const logged: LoggedTable[] = [];
  for (const name of [...names].toSorted()) {
    const table = input.sourceCatalog.get(name);
    if (table === undefined) {
      const user = mappings.find(
        (mapping) => mapping.from.table === name || mapping.from.also.has(name),
      );
      issues.push({
        path: `${user?.path ?? name}.from`,
        message: `table ${name} not found in schema ${input.plan[sourceOf(input.direction)].schema} of the ${sourceOf(input.direction)} database; it has: ${[...input.sourceCatalog.keys()].join(", ") || "no tables"}`,
      });
      continue;
    }
    logged.push(loggedTable(table, installed.get(name)?.number ?? (last += 1), mappings));
  }
  return logged;
}

function loggedTable(table: Table, number: number, mappings: readonly MappingPlan[]): LoggedTable {
  const drives = mappings.some((mapping) => mapping.from.table === table.name);
  const rules = mappings.flatMap((mapping) => {
    const sql = mapping.from.also.get(table.name);
    return sql === undefined ? [] : [{ driver: mapping.from.table, sql }];
  });
  const also = rules.filter(
    (rule, i) =>
      rules.findIndex((other) => other.driver === rule.driver && other.sql === rule.sql) === i,
  );
  const wanted = new Map<string, Column>();
  for (const column of keyColumns(table)) wanted.set(column.name, column);
  for (const rule of also)
    for (const column of columnsNamedIn(rule.sql, table.columns)) wanted.set(column.name, column);
  const columns = [...wanted.values()];
  return {
    name: table.name,
    number,
    table,
    columns,
    drives: drives
      ? table.key.map((name) => columns.findIndex((column) => column.name === name))
      : undefined,
    also,
  };
}

async function compileDriver(
  name: string,
  mappings: readonly MappingPlan[],
  tables: readonly LoggedTable[],
  input: CompileInput,
  issues: PlanIssue[],
): Promise<Driver | undefined> {
  const logged = tables.find((table) => table.name === name);
  if (logged === undefined) return undefined;
  const own = mappings.filter((mapping) => mapping.from.table === name);
  refuseHeirs(logged.table, `${own[0]?.path ?? name}.from`, issues);
  if (logged.table.key.length === 0) {
    issues.push({
      path: `${own[0]?.path ?? name}.from`,
      message: `table ${name} has neither a primary key nor a unique index over not-null columns; add one, or name the columns that tell its rows apart (from: { table: ${name}, key: [column] })`,
    });
    return undefined;
  }
  const key = keyColumns(logged.table);
  const bare = {
    name,
    number: logged.number,
    table: logged.table,
    key,
    uniqueKey: own.every(({ from }) => from.key === undefined),
    mapperKey: await mapperColumns(
      key.map((column) => ({ name: column.name, type: column.baseType })),
      input,
    ),
  };
  const readers: Reader[] = [];
  for (const group of readerGroups(own)) {
    const query = group[0]?.from.query;
    const reader = await compileReader({ ...bare, readers: [] }, query, group, input, issues);
    if (reader !== undefined) readers.push(reader);
  }
  return { ...bare, readers };
}

/** Mappings that read the same rows. What a module makes of its rows is nobody else's. */
function readerGroups(mappings: readonly MappingPlan[]): MappingPlan[][] {
  const plain = mappings.filter((mapping) => mapping.transform === undefined);
  const queries = new Set(plain.map((mapping) => mapping.from.query));
  return [
    ...[...queries].map((query) => plain.filter((mapping) => mapping.from.query === query)),
    ...mappings.filter((mapping) => mapping.transform !== undefined).map((mapping) => [mapping]),
  ];
}

async function compileReader(
  driver: Driver,
  query: string | undefined,
  mappings: readonly MappingPlan[],
  input: CompileInput,
  issues: PlanIssue[],
): Promise<Reader | undefined> {
  const path = `${mappings[0]?.path ?? driver.name}.from`;
  let columns: { name: string; type: string; typeKind: string }[];
  try {
    columns =
      query === undefined
        ? [...driver.table.columns]
        : await describeQuery(input.sourceClient, query);
  } catch (error) {
    if (!isFaultOfStatement(error)) throw error;
    issues.push({
      path: `${path}.query`,
      message: `does not run on the ${sourceOf(input.direction)} database: ${messageOf(error)}`,
    });
    return undefined;
  }
  const missing = driver.table.key.filter((key) => !columns.some((column) => column.name === key));
  if (missing.length > 0) {
    issues.push({
      path: `${path}.query`,
      message: `must return the driving table's key; column ${missing.join(", ")} is missing`,
    });
    return undefined;
  }
  const resolved = await typesOnMapper(columns, input);
  const readerColumns = await mapperColumns(columns, input);
  const binary = await haveOneBinaryForm(columns, resolved, input);
  const reader = { query, columns: readerColumns, binary };
  const [first] = mappings;
  if (first?.transform !== undefined) {
    const made = await compileTransform(
      { ...first, transform: first.transform },
      driver,
      readerColumns,
      input,
      issues,
    );
    return made && { ...reader, mappings: [made.mapping], transform: made.transform };
  }
  const compiled: Mapping[] = [];
  for (const plan of mappings) {
    const mapping = await compileMapping(plan, driver, readerColumns, input, issues);
    if (mapping === undefined) continue;
    refuseWide(mapping, driver, input, issues);
    compiled.push(mapping);
  }
  return { ...reader, mappings: compiled };
}

type NamedType = Pick<ReaderColumn, "name" | "type">;

/** A type that is missing on the mapping server travels as text; only an enum's binary form is its text. */
async function haveOneBinaryForm(
  columns: readonly { readonly type: string; readonly typeKind: string }[],
  resolved: readonly (string | undefined)[],
  { sourceTypes, mappingTypes }: CompileInput,
): Promise<boolean> {
  const there = await sourceTypes.structuresOf(columns.map(({ type }) => type));
  const here = await mappingTypes.structuresOf(resolved);
  return columns.every(({ typeKind }, i) =>
    resolved[i] === undefined ? typeKind === "e" : there[i] !== undefined && there[i] === here[i],
  );
}

const typesOnMapper = (columns: readonly NamedType[], input: CompileInput) =>
  input.mappingTypes.namesOf(
    columns.map(({ type }) => type),
    input.plan[sourceOf(input.direction)].schema,
  );

/** Source columns with the types they have where expressions run; text where there is no such type. */
async function mapperColumns(
  columns: readonly NamedType[],
  input: CompileInput,
): Promise<ReaderColumn[]> {
  const resolved = await typesOnMapper(columns, input);
  return columns.map(({ name }, i) => ({ name, type: resolved[i] ?? "text" }));
}

/** A parent's triggers do not see its heirs' rows, and its queries do: they would be copied and never followed. */
function refuseHeirs(table: Table, path: string, issues: PlanIssue[]): void {
  if (table.heirs.length === 0) return;
  issues.push({
    path,
    message: `table ${table.name} has tables that inherit from it (${table.heirs.join(", ")}), and its own rows cannot be told from theirs. Map those tables, each by itself, and leave ${table.name} out; or end the inheritance (alter table … no inherit ${table.name}), or make it a partitioned table`,
  });
}

/** Postgres' own limit of a table. */
const MOST_COLUMNS = 1_600;

/** Between two databases the rows of the way back are staged with the keys they come from. */
function refuseWide(
  mapping: Mapping,
  driver: Driver,
  { plan, direction }: CompileInput,
  issues: PlanIssue[],
): void {
  const staged = mapping.columns.length + driver.key.length;
  if (direction === "forward" || isSameDatabase(plan) || staged <= MOST_COLUMNS) return;
  issues.push({
    path: mapping.path,
    message: `makes ${mapping.columns.length} columns of ${mapping.target.name}; with the key of ${driver.name} that travels beside them these are ${staged} columns, and a table can have at most ${MOST_COLUMNS}. Put ${mapping.target.name} and its new form into one database, or drop columns`,
  });
}

/** Drivers whose targets are referenced come first, so that parents are written before children. */
function orderDrivers(drivers: readonly Driver[], targetCatalog: Catalog): Driver[] {
  const targetsOf = (driver: Driver) =>
    driver.readers.flatMap((reader) => reader.mappings.map((mapping) => mapping.target.name));
  const order = foreignKeyOrder(targetCatalog, drivers.flatMap(targetsOf));
  const rank = (driver: Driver) =>
    Math.min(...targetsOf(driver).map((name) => order.indexOf(name)));
  return drivers.toSorted((a, b) => rank(a) - rank(b) || a.number - b.number);
}
