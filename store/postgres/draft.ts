import { type Catalog, type Column, columnOf, foreignKeyOrder, type Table } from "./catalog.ts";

/** A guess of how one table of the target side is made. */
export interface DraftTable {
  readonly target: string;
  /** The driving table; undefined: nothing of the source looks like it. */
  readonly from: string | undefined;
  /** Target column → SQL over the source row; same-named columns need none. */
  readonly set: ReadonlyMap<string, string>;
  /** What a person has to look at, a sentence each. */
  readonly open: readonly string[];
}

export interface Draft {
  /** Every table has a namesake with the same columns and types: nothing has to be said. */
  readonly identity: boolean;
  readonly tables: readonly DraftTable[];
  /** Tables of the source that no guess uses. */
  readonly unused: readonly string[];
}

/** Below this share of common columns two tables of different names are not taken for the same. */
const ALIKE = 0.6;

/** Guesses the mappings of one direction from both catalogs alone. Never reads a row. */
export function draftDirection(source: Catalog, target: Catalog): Draft {
  const names = foreignKeyOrder(target, target.keys());
  const tables = names.map((name) => draftTable(source, target, tableOf(target, name)));
  const used = new Set(tables.map((table) => table.from));
  const unused = [...source.keys()].filter((name) => !used.has(name));
  const identity =
    unused.length === 0 &&
    tables.length > 0 &&
    tables.every((table) => table.from === table.target && isSame(source, target, table.target));
  return { identity, tables, unused };
}

function draftTable(source: Catalog, target: Catalog, table: Table): DraftTable {
  const from = drivingTable(source, target, table);
  if (from === undefined) {
    const open = [
      `no table of the other side looks like ${table.name}: say where its rows come from`,
    ];
    return { target: table.name, from: undefined, set: new Map(), open };
  }
  const set = new Map<string, string>();
  const open: string[] = [];
  if (from.name !== table.name) open.push(`guessed by its columns: is it made of ${from.name}?`);
  for (const column of table.columns) {
    if (column.generated) continue;
    const same = columnOf(from, column.name);
    if (same !== undefined) {
      if (same.type !== column.type)
        open.push(`${column.name} changes its type: ${same.type} becomes ${column.type}`);
      continue;
    }
    const renamed = renamedColumn(from, table, column);
    if (renamed !== undefined) {
      set.set(column.name, `"${renamed.name.replaceAll('"', '""')}"`);
      open.push(`${column.name} is guessed to be ${renamed.name}`);
    } else {
      open.push(missingColumn(column));
    }
  }
  const carried = new Set([
    ...table.columns.map(({ name }) => name),
    ...[...set.values()].map(unquoted),
  ]);
  const left = from.columns.filter(({ name, generated }) => !generated && !carried.has(name));
  if (left.length > 0) open.push(`not carried over: ${left.map(({ name }) => name).join(", ")}`);
  return { target: table.name, from: from.name, set, open };
}

function missingColumn({ name, type, notNull, hasDefault, identity }: Column): string {
  if (hasDefault || identity !== undefined)
    return `${name} (${type}) has no source and gets its default: give it a line under set if that is not right`;
  if (!notNull)
    return `${name} (${type}) has no source and stays null: give it a line under set if that is not right`;
  return `${name} (${type}, not null) has no source: it needs a line under set`;
}

/** The namesake, else the one table of a like name, else the one with the most columns in common. */
function drivingTable(source: Catalog, target: Catalog, table: Table): Table | undefined {
  const namesake = source.get(table.name);
  if (namesake !== undefined) return namesake;
  // A table that has a namesake of its own is spoken for.
  const free = [...source.values()].filter(({ name }) => !target.has(name));
  const likeNames = free.filter(({ name }) => plain(name) === plain(table.name));
  if (likeNames.length === 1) return likeNames[0];
  const ranked = free
    .map((candidate) => ({ candidate, share: commonShare(candidate, table) }))
    .filter(({ share }) => share >= ALIKE)
    .toSorted((a, b) => b.share - a.share);
  const [best, second] = ranked;
  return best !== undefined && best.share > (second?.share ?? 0) ? best.candidate : undefined;
}

/** Share of the columns of both that have the same name (DESIGN: guesses are marked, so a wrong one is seen). */
function commonShare(a: Table, b: Table): number {
  const names = new Set(a.columns.map(({ name }) => plain(name)));
  const common = b.columns.filter(({ name }) => names.has(plain(name))).length;
  return common / (names.size + b.columns.length - common);
}

function renamedColumn(from: Table, table: Table, column: Column): Column | undefined {
  const free = from.columns.filter(({ name }) => columnOf(table, name) === undefined);
  const wanted = variants(table.name, column.name);
  const found = free.filter(({ name }) =>
    variants(from.name, name).some((variant) => wanted.includes(variant)),
  );
  return found.length === 1 ? found[0] : undefined;
}

/** `customers.customer_name` may be called `name` elsewhere. */
function variants(table: string, column: string): string[] {
  const name = plain(column);
  const singular = plain(table);
  const prefix = [singular, singular.replace(/y$/, "ie")].find(
    (start) => name.startsWith(start) && name !== start,
  );
  return prefix === undefined ? [name] : [name, name.slice(prefix.length)];
}

/** A name without case, separators and plural: `CustomerNames` and `customer_name`, `categories` and `category` are the same. */
function plain(name: string): string {
  return name
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}]/gu, "")
    .replace(/(?<=..)s$/, "")
    .replace(/(?<=..)ie$/, "y");
}

function unquoted(expression: string): string {
  return expression.slice(1, -1).replaceAll('""', '"');
}

function isSame(source: Catalog, target: Catalog, name: string): boolean {
  const shape = (table: Table) =>
    table.columns
      .map(({ name: column, type }) => `${column} ${type}`)
      .toSorted()
      .join("\n");
  return shape(tableOf(source, name)) === shape(tableOf(target, name));
}

function tableOf(catalog: Catalog, name: string): Table {
  const table = catalog.get(name);
  if (table === undefined) throw new Error(`${name} is not in the catalog`);
  return table;
}
