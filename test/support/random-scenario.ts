import fc from "fast-check";
import type { MappingPlan } from "../../config/plan-types.ts";
import { ident, literal, relation } from "../../store/postgres/quote.ts";
import { transformFile } from "./mapping-cases.ts";
import { NAMES, TYPES, from } from "./random-values.ts";
import type { Draw, Type } from "./random-values.ts";
import { mapping } from "./sync-world.ts";

/**
 * A random migration: tables, mappings between them, and transactions on the source. Everything is drawn before
 * anything runs, so a seed always gives the same statements, whatever the timing.
 */
export interface Scenario {
  /** Statements that make the source's tables, and the target's; names resolve by search_path. */
  readonly source: string;
  readonly target: string;
  readonly mappings: readonly MappingPlan[];
  /** What each target table must hold in the end, as plain SQL over the source. */
  readonly expected: readonly Expectation[];
  readonly transactions: readonly (readonly string[])[];
}

export interface Expectation {
  readonly table: string;
  readonly columns: readonly string[];
  readonly select: string;
  /** Rows that lost their source stay: shared ones. */
  readonly atLeast: boolean;
}

interface Column {
  readonly name: string;
  readonly type: Type;
}
interface Source {
  readonly name: string;
  readonly key: readonly Column[];
  readonly extra: readonly Column[];
  readonly identity: string | undefined;
  readonly unique: string | undefined;
  readonly flag: string;
  readonly tag: string;
  readonly partitioned: boolean;
  readonly parent: Source | undefined;
  /** Columns that refer to the parent's key. */
  readonly reference: readonly string[];
}

export const scenario: fc.Arbitrary<Scenario> = fc.gen().map((g) => draw(g));

function draw(g: Draw): Scenario {
  const sources: Source[] = [];
  const count = g(() => fc.integer({ min: 1, max: 3 }));
  const names = drawNames(g, count);
  for (const name of names) sources.push(drawSource(g, name, sources));
  const made = sources.map((source, i) => drawMappings(g, source, i));
  const many = g(() => fc.integer({ min: 6, max: 14 }));
  return {
    source: [PRELUDE, ...sources.map((source) => sourceSql(source))].join(";\n"),
    target: [PRELUDE, ...made.flatMap((one) => one.tables)].join(";\n"),
    mappings: made.flatMap((one) => one.mappings),
    expected: made.flatMap((one) => one.expected),
    transactions: Array.from({ length: many }, () => drawTransaction(g, sources)),
  };
}

export const PRELUDE = `create type mood as enum ('sad', 'so so, "fine"'); create type pair as (a int, b text);
create domain posint as int check (value > 0)`;

const coin = (g: Draw, percent: number) => g(() => fc.integer({ min: 0, max: 99 })) < percent;

function drawNames(g: Draw, count: number): string[] {
  return g(() => fc.shuffledSubarray(NAMES, { minLength: count, maxLength: count }));
}

function drawSource(g: Draw, name: string, before: readonly Source[]): Source {
  const keys = g(() => fc.integer({ min: 1, max: 2 }));
  const partitioned = coin(g, 25);
  const fields = drawNames(g, 13);
  const next = () => fields.pop() ?? "";
  const type = (of: readonly Type[]) => g(() => fc.constantFrom(...of));
  const key = Array.from({ length: keys }, () => ({
    name: next(),
    type: type(TYPES.filter((t) => t.key === true && (!partitioned || t.partition === true))),
  }));
  const extras = g(() => fc.integer({ min: 1, max: 3 }));
  const parents = before.filter((candidate) => !candidate.partitioned);
  const parent =
    parents.length > 0 && coin(g, 60) ? g(() => fc.constantFrom(...parents)) : undefined;
  const extra = Array.from({ length: extras }, () => ({ name: next(), type: type(TYPES) }));
  return {
    name,
    key,
    extra,
    identity: coin(g, 45) ? next() : undefined,
    unique: coin(g, 50) && !partitioned ? next() : undefined,
    flag: next(),
    tag: next(),
    partitioned,
    parent,
    reference: (parent?.key ?? []).map(() => next()),
  };
}

const list = (names: readonly string[]) => names.map(ident).join(", ");

/** Columns of a source in order, as `create table` has them. */
function columnSql(source: Source): string[] {
  return [
    ...source.key.map(({ name, type }) => `${ident(name)} ${type.sql} not null`),
    ...source.extra.map(({ name, type }) => `${ident(name)} ${type.sql}`),
    ...(source.identity === undefined
      ? []
      : [`${ident(source.identity)} bigint generated always as identity`]),
    ...(source.unique === undefined ? [] : [`${ident(source.unique)} int unique`]),
    `${ident(source.flag)} boolean not null`,
    `${ident(source.tag)} text not null`,
    ...source.reference.map((name, i) => `${ident(name)} ${source.parent?.key[i]?.type.sql}`),
  ];
}

function tableSql(name: string, columns: readonly string[], partitionKey?: string): string {
  const table = ident(name);
  if (partitionKey === undefined) return `create table ${table} (${columns.join(", ")})`;
  const leaves = [0, 1].map(
    (n) =>
      `create table ${ident(`leaf ${n} of ${name}`.slice(0, 40))} partition of ${table} for values with (modulus 2, remainder ${n})`,
  );
  return [
    `create table ${table} (${columns.join(", ")}) partition by hash (${ident(partitionKey)})`,
    ...leaves,
  ].join("; ");
}

function sourceSql(source: Source): string {
  const key = list(source.key.map((column) => column.name));
  const columns = [...columnSql(source), `primary key (${key})`];
  if (source.parent !== undefined)
    columns.push(
      `foreign key (${list(source.reference)}) references ${ident(source.parent.name)} on delete cascade on update cascade`,
    );
  return tableSql(source.name, columns, source.partitioned ? source.key[0]?.name : undefined);
}

interface Made {
  readonly tables: string[];
  readonly mappings: MappingPlan[];
  readonly expected: Expectation[];
}

const KINDS = [
  "same",
  "renamed",
  "filtered",
  "split",
  "constants",
  "hashed key",
  "shared",
  "transform",
] as const;

function drawMappings(g: Draw, source: Source, number: number): Made {
  const kind = g(() => fc.constantFrom(...KINDS));
  const made: Made = { tables: [], mappings: [], expected: [] };
  const all = columnSql(source).map((sql, i) => ({ sql, name: namesOf(source)[i] ?? "" }));
  const key = source.key.map((column) => column.name);
  const primary = (names: readonly string[]) => `primary key (${list(names)})`;
  const plain = (table: string, where?: string, columns = all) => {
    add(made, source, {
      table,
      columns: columns.map((column) => [column.name, ident(column.name)]),
      sql: [...columns.map((column) => column.sql), primary(key)],
      where,
      bare: true,
    });
  };
  if (kind === "same") plain(source.name);
  if (kind === "filtered")
    plain(source.name, `${ident(source.flag)} and ${ident(source.tag)} <> 'c'`);
  if (kind === "renamed") {
    const renamed = (name: string) => (key.includes(name) || name.length > 50 ? name : `n ${name}`);
    add(made, source, {
      table: source.name,
      columns: [
        ...all.map((c): [string, string] => [renamed(c.name), ident(c.name)]),
        ["cf computed", `upper(${ident(source.tag)}) || ${ident(source.flag)}`],
      ],
      sql: [
        ...all.map((c) => `${ident(renamed(c.name))}${c.sql.slice(ident(c.name).length)}`),
        `"cf computed" text`,
        `"cf generated" text generated always as ("cf computed" || '!') stored`,
        primary(key),
      ],
      where: undefined,
    });
  }
  if (kind === "split") {
    const extra = source.extra[0]?.name ?? "";
    const rest = all.filter((column) => column.name !== extra);
    const part = all.filter((column) => column.name === extra || key.includes(column.name));
    plain(source.name, undefined, rest);
    plain(`part ${number}`, `${ident(extra)} is not null`, part);
  }
  if (kind === "constants") {
    const table = `list ${number}`;
    const parts = [
      { value: "one", where: undefined },
      { value: "it''s two", where: ident(source.flag) },
    ];
    const keyed = all.filter((column) => key.includes(column.name));
    const sql = [...keyed.map((c) => c.sql), "kind text", "label text", primary([...key, "kind"])];
    for (const [i, { value, where }] of parts.entries()) {
      add(made, source, {
        table,
        columns: [
          ...keyed.map((c): [string, string] => [c.name, ident(c.name)]),
          ["kind", `'${value}'`],
          ["label", ident(source.tag)],
        ],
        sql: i === 0 ? sql : undefined,
        where,
      });
    }
  }
  if (kind === "hashed key") {
    const id = `md5(concat_ws('|', ${key.map((name) => `format('%s', ${ident(name)})`).join(", ")}))::uuid`;
    // Keys that are equal but written differently would hash to two rows; those types keep one form only.
    const canonical = source.key.every(({ type }) => !["numeric", "float8"].includes(type.sql));
    const rest = all.filter((column) => !key.includes(column.name));
    if (!canonical) plain(source.name);
    else
      add(made, source, {
        table: source.name,
        columns: [["new id", id], ...rest.map((c): [string, string] => [c.name, ident(c.name)])],
        sql: [`"new id" uuid primary key`, ...rest.map((c) => c.sql)],
        where: undefined,
      });
  }
  if (kind === "shared") {
    plain(source.name);
    add(made, source, {
      table: `shared ${number}`,
      columns: [["name", ident(source.tag)]],
      sql: ["name text primary key"],
      where: ident(source.flag),
      shared: true,
    });
  }
  if (kind === "transform") {
    const owned = key.map((name, i): [string, string] => [`own ${i}`, ident(name)]);
    const values = all.map((c): [string, string] => [c.name, ident(c.name)]);
    const columns = [...owned, ...values];
    const typed = source.key.map(({ type }, i) => `${ident(`own ${i}`)} ${type.sql}`);
    const rows = (n: number, where?: string) =>
      add(made, source, {
        table: source.name,
        columns: [["row no", String(n)], ...columns],
        sql:
          n > 1
            ? undefined
            : [
                `"row no" int`,
                ...typed,
                ...all.map((c) => c.sql.replace(/ unique$/, "")),
                primary(["row no", ...owned.map(([name]) => name)]),
              ],
        where,
        transform: { own: owned },
      });
    rows(1);
    rows(2, `num_nulls(${list(all.map((c) => c.name))}) > 0`);
  }
  return made;
}

function namesOf(source: Source): string[] {
  return [
    ...source.key.map((column) => column.name),
    ...source.extra.map((column) => column.name),
    ...[source.identity, source.unique].filter((name) => name !== undefined),
    source.flag,
    source.tag,
    ...source.reference,
  ];
}

interface Part {
  readonly table: string;
  readonly columns: readonly (readonly [string, string])[];
  /** undefined: the table is there already. */
  readonly sql: readonly string[] | undefined;
  readonly where: string | undefined;
  /** Columns are carried over by name, and the mapping says nothing of them. */
  readonly bare?: true;
  readonly shared?: true;
  /** The first part of such a table stands for all that the module makes. */
  readonly transform?: { readonly own: readonly (readonly [string, string])[] };
}

function add(made: Made, source: Source, part: Part): void {
  if (part.sql !== undefined) made.tables.push(tableSql(part.table, part.sql));
  const path = `test.${part.table}[${made.mappings.length}]`;
  if (part.transform !== undefined) {
    if (part.sql !== undefined)
      made.mappings.push(
        mapping(part.table, source.name, {
          path,
          own: new Map(part.transform.own),
          transform: transformFile("as-it-is.ts"),
        }),
      );
  } else {
    made.mappings.push(plainMapping(path, source, part));
  }
  const values = part.columns.map(([, sql]) => sql).join(", ");
  const select = `select ${values} from ${ident(source.name)} where ${part.where ?? "true"}`;
  const same = made.expected.findIndex((one) => one.table === part.table);
  const before = made.expected[same];
  if (before !== undefined)
    made.expected[same] = { ...before, select: `${before.select} union all ${select}` };
  else
    made.expected.push({
      table: part.table,
      columns: part.columns.map(([name]) => name),
      select,
      atLeast: part.shared === true,
    });
}

function plainMapping(path: string, source: Source, part: Part): MappingPlan {
  return mapping(part.table, source.name, {
    path,
    where: part.where,
    own: part.shared === true ? "none" : undefined,
    set: new Map(part.bare === true ? [] : part.columns),
  });
}

function drawTransaction(g: Draw, sources: readonly Source[]): string[] {
  const many = g(() => fc.integer({ min: 1, max: 4 }));
  const statements: string[] = ["begin"];
  for (let n = 0; n < many; n += 1) {
    const undone = coin(g, 15);
    if (undone) statements.push("savepoint s");
    statements.push(
      drawStatement(
        g,
        g(() => fc.constantFrom(...sources)),
      ),
    );
    if (undone) statements.push("rollback to s");
  }
  statements.push(coin(g, 15) ? "rollback" : "commit");
  return statements;
}

function drawStatement(g: Draw, source: Source): string {
  const table = ident(source.name);
  const kind = g(() => fc.integer({ min: 0, max: 99 }));
  const value = (type: Type) => `${literal(type.values(g))}::${type.sql}`;
  const key = list(source.key.map((column) => column.name));
  const some = `(${key}) in (select ${key} from ${table} order by md5(${key.includes(",") ? `(${key})` : key}::text) offset ${g(() => fc.nat(4))} limit ${g(() => fc.integer({ min: 1, max: 4 }))})`;
  const settable = (name: string, type: Type) =>
    `${ident(name)} = ${coin(g, 15) ? "null" : value(type)}`;
  if (kind < 45) {
    const rows = g(() => fc.integer({ min: 1, max: 5 }));
    const names = [...source.key, ...source.extra].map((column) => column.name);
    const columns = [
      ...names,
      source.flag,
      source.tag,
      ...(source.unique === undefined ? [] : [source.unique]),
      ...source.reference,
    ];
    const tuples = Array.from({ length: rows }, () => {
      const reference =
        source.parent === undefined
          ? []
          : source.parent.key.map(
              ({ name, type }) =>
                // One whole row of the parent, or nothing.
                `(select ${ident(name)} from ${ident(source.parent?.name ?? "")} order by ${list(source.parent?.key.map((c) => c.name) ?? [])} limit 1)::${type.sql}`,
            );
      return `(${[
        ...source.key.map(({ type }) => value(type)),
        ...source.extra.map(({ type }) => (coin(g, 20) ? `null::${type.sql}` : value(type))),
        String(coin(g, 60)),
        literal(from("a", "b", "c", "")(g)),
        ...(source.unique === undefined ? [] : [String(g(() => fc.integer({ min: 0, max: 12 })))]),
        ...reference,
      ].join(", ")})`;
    });
    return `insert into ${table} (${list(columns)}) values ${tuples.join(", ")} on conflict do nothing`;
  }
  if (kind < 70) {
    const sets = source.extra
      .filter(() => coin(g, 60))
      .map(({ name, type }) => settable(name, type));
    if (coin(g, 50)) sets.push(`${ident(source.flag)} = not ${ident(source.flag)}`);
    if (coin(g, 30)) sets.push(`${ident(source.tag)} = ${literal(from("a", "b", "c")(g))}`);
    if (source.unique !== undefined && coin(g, 40))
      sets.push(`${ident(source.unique)} = ${ident(source.unique)} + ${coin(g, 50) ? 1 : -1}`);
    if (source.identity !== undefined && coin(g, 50))
      sets.push(`${ident(source.identity)} = default`);
    if (sets.length === 0) sets.push(`${ident(source.tag)} = ${ident(source.tag)} || 'x'`);
    return `update ${table} set ${sets.join(", ")} where ${some}`;
  }
  if (kind < 80) {
    const column = g(() => fc.constantFrom(...source.key));
    return `update ${table} set ${ident(column.name)} = ${value(column.type)} where ${some.replace(/limit \d+/, "limit 1")}`;
  }
  if (kind < 96) return `delete from ${table} where ${some}`;
  return `truncate ${table} cascade`;
}

/** Every row of a query as one JSON text, sorted: what two sides must have in common. */
export function rowsSql(schema: string, { table, columns }: Expectation): string {
  return `select ${list(columns)} from ${relation(schema, table)}`;
}
