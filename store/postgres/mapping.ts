import type { Transform } from "../../config/transform-types.ts";
import type { Direction, Side } from "../../config/words.ts";
import type { Column, Table } from "./catalog.ts";
import { ident } from "./quote.ts";

/**
 * The plan's mappings of one direction, resolved against both catalogs (compile.ts makes it). Everything a sync needs
 * to build its statements; nothing here talks to a database.
 */
export interface CompiledDirection {
  readonly direction: Direction;
  readonly source: Side;
  readonly target: Side;
  readonly sourceSchema: string;
  readonly targetSchema: string;
  /** Both sides in one database: no rows travel, every sync is one statement. */
  readonly sameDatabase: boolean;
  /** Driving tables in foreign-key order of what they make. */
  readonly drivers: readonly Driver[];
  /** Tables whose changes are logged on the source: driving tables and those an `also` names. */
  readonly logged: readonly LoggedTable[];
}

/** A source table whose keys travel, with everything that is made from its rows. */
export interface Driver {
  readonly name: string;
  /** Number of the table in the log; chunk locks carry it too. */
  readonly number: number;
  readonly table: Table;
  readonly key: readonly Column[];
  /** false: nothing but the plan's word says that no two rows have one key. */
  readonly uniqueKey: boolean;
  /** The key with the types it has where expressions run: a type of the source's schema may have another name there. */
  readonly mapperKey: readonly ReaderColumn[];
  readonly readers: readonly Reader[];
}

/** One way of reading a driving table: itself, or a query over it. */
export interface Reader {
  readonly query: string | undefined;
  /** Columns that expressions may use, with the types they have where expressions run (the new Postgres). */
  readonly columns: readonly ReaderColumn[];
  /** Every type exists by the same name on the mapping server, so rows may travel as binary COPY. */
  readonly binary: boolean;
  readonly mappings: readonly Mapping[];
  /** A module makes the rows of the reader's only mapping, in this process. */
  readonly transform?: ReaderTransform;
}

export interface ReaderTransform {
  readonly file: string;
  readonly run: Transform;
  /** Target columns that it makes. */
  readonly made: readonly string[];
  /** The relation that `mapping.columns` and `own` are expressions over: what is made, as texts, and the source key. */
  readonly columns: readonly ReaderColumn[];
}

export interface ReaderColumn {
  readonly name: string;
  readonly type: string;
}

export interface Mapping {
  /** Where it stands in the plan: also its name in quarantine and reports. */
  readonly path: string;
  readonly target: Table;
  readonly columns: readonly MappedColumn[];
  /** Target columns an upsert conflicts on. */
  readonly key: readonly string[];
  readonly own: Own;
  readonly where: string | undefined;
  readonly rejects: readonly { readonly reason: string; readonly condition: string }[];
}

export interface MappedColumn {
  readonly name: string;
  /** SQL over the source row. */
  readonly expression: string;
  /** The target column's type without modifier, as known where the expression runs; undefined if unknown there. */
  readonly castType: string | undefined;
  /** The type on the target, for values that arrive as text. */
  readonly targetBaseType: string;
  /** The type on the target with its modifier, as an insert would store it. */
  readonly targetType: string;
  /** false: part of the key, or an identity column that an update may not set. */
  readonly updatable: boolean;
}

/** Which target rows belong to a source key. */
export type Own =
  | { readonly kind: "none" }
  | { readonly kind: "columns"; readonly columns: readonly OwnColumn[] };

export interface OwnColumn {
  readonly column: string;
  /** SQL over the source key. */
  readonly expression: string;
  /** The target column's type as known where the expression runs; undefined if unknown there. */
  readonly castType: string | undefined;
  readonly targetBaseType: string;
  /** Position in the source key when the expression is that key column itself: the source key of an extra row is then known. */
  readonly keyPosition: number | undefined;
}

export interface LoggedTable {
  readonly name: string;
  readonly number: number;
  readonly table: Table;
  /** What one log row holds: key columns and those an `also` uses. */
  readonly columns: readonly Column[];
  /** Positions in `columns` that form the driving key; undefined if the table drives nothing. */
  readonly drives: readonly number[] | undefined;
  /** Driving keys to re-make when a row of this table changes. */
  readonly also: readonly AlsoRule[];
}

export interface AlsoRule {
  readonly driver: string;
  /** An expression list over the logged row, or a whole select. */
  readonly sql: string;
}

/** The name expressions call their row by: the driving table's. */
export function aliasOf(driver: Driver): string {
  return ident(driver.name);
}

export function allMappings(
  direction: CompiledDirection,
): { driver: Driver; reader: Reader; mapping: Mapping }[] {
  return direction.drivers.flatMap((driver) =>
    driver.readers.flatMap((reader) =>
      reader.mappings.map((mapping) => ({ driver, reader, mapping })),
    ),
  );
}

/**
 * Whether source rows come to this process as they are. Old rows do, and those that a module is called with; in one database
 * old rows need not, unless a query reads them: its names belong to the old schema, those of expressions to the new.
 */
export function rowsTravel(compiled: CompiledDirection, reader: Reader): boolean {
  if (reader.transform !== undefined) return true;
  return compiled.direction === "forward" && (!compiled.sameDatabase || reader.query !== undefined);
}

/** Rows that a module makes are made for keys, never for a range: chunks of such a table are taken key by key. */
export function takenByKeys(driver: Driver): boolean {
  return driver.readers.some((reader) => reader.transform !== undefined);
}

/** A reader may return several rows for one key, and which of them is meant nobody knows. */
export function mayRepeat(driver: Driver, reader: Reader): boolean {
  return reader.query !== undefined || !driver.uniqueKey;
}

/** True if every source key can be read off the target rows it owns. */
export function ownRevealsKey(mapping: Mapping, driver: Driver): boolean {
  return (
    mapping.own.kind === "columns" &&
    driver.key.every(
      (_, position) =>
        mapping.own.kind === "columns" &&
        mapping.own.columns.some((own) => own.keyPosition === position),
    )
  );
}

/** Names that mean something of their own where they stand alone, such as `user`, or that Postgres would fold. */
const NOT_BARE =
  /^(user|null|true|false|default|(current|session|system)_\w+|localtime|localtimestamp)$|^[^a-z_]|[^a-z0-9_]/;

/** The column of the source row that an expression is, if it is nothing but one: a column's name, or its table's before it. */
export function bareColumn(expression: string, driver: Driver): string | undefined {
  const bare = expression.trim();
  return driver.table.columns.find(
    ({ name }) =>
      bare === `${aliasOf(driver)}.${ident(name)}` ||
      bare === ident(name) ||
      (!NOT_BARE.test(name) && (bare === name || bare === `${driver.name}.${name}`)),
  )?.name;
}

const IDENTIFIER = /"((?:[^"]|"")+)"|([A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*)/g;

/**
 * Names of `columns` that stand in `sql` as identifiers: a superset of the columns used (a name inside a string counts
 * too), found without parsing. Too many only means that a log row holds a value nobody needs.
 */
export function columnsNamedIn(sql: string, columns: readonly Column[]): Column[] {
  const words = new Set<string>();
  for (const match of sql.matchAll(IDENTIFIER)) {
    const quoted = match[1];
    words.add(quoted === undefined ? (match[2] ?? "").toLowerCase() : quoted.replaceAll('""', '"'));
  }
  return columns.filter((column) => words.has(column.name));
}
