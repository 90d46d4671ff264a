import type pg from "pg";
import type { Table } from "../../store/postgres/catalog.ts";
import type { CompiledDirection, LoggedTable } from "../../store/postgres/mapping.ts";
import { ident, literal, relation } from "../../store/postgres/quote.ts";
import { run } from "../../store/postgres/statement.ts";
import type { Finding } from "./finding.ts";
import { namePattern } from "./pattern.ts";
import type { Source } from "./source.ts";
import { unlessUnknown } from "./unknown.ts";

/** Tables smaller than this are scanned in no time. */
const LARGE_ROWS = 10_000;

interface PlanNode {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly Alias?: string;
  readonly Filter?: string;
  readonly "Join Filter"?: string;
  readonly "Hash Cond"?: string;
  readonly "Merge Cond"?: string;
  readonly Plans?: readonly PlanNode[];
}

/**
 * Lookups that every change of a row makes on its source: a `query` for some keys, an `also` for a changed row. The planner
 * is asked, with scans forbidden: a table that it scans all the same has no index for it.
 */
export async function lookupFindings(
  compiled: CompiledDirection,
  from: Source,
  tables: ReadonlyMap<string, Table>,
): Promise<Finding[]> {
  const source = from.client;
  const found: Finding[] = [];
  for (const driver of compiled.drivers) {
    for (const { query, mappings } of driver.readers) {
      const path = `${mappings[0]?.path ?? driver.name}.from.query`;
      const names = driver.key.map(({ name }) => ident(name));
      const [key] = await run(
        source,
        `select ${names.map((name) => `${name}::text`).join(", ")} from ${relation(compiled.sourceSchema, driver.name)} limit 1`,
      );
      if (query === undefined || key === undefined) continue;
      const values = driver.key.map((column, i) => `${literal(key[i] ?? "")}::${column.baseType}`);
      const sql = `select * from (${query}\n) cf_q where ${names.map((name, i) => `cf_q.${name} = ${values[i]}`).join(" and ")}`;
      await unlessUnknown(found, [path], async () => {
        const place = { path, side: compiled.source, tables };
        found.push(...(await from.aside(() => scans(source, sql, place))));
      });
    }
  }
  for (const logged of compiled.logged) {
    for (const { sql } of logged.also) {
      const path = `${compiled.direction}: also ${logged.name}`;
      const lookup = alsoLookup(compiled.sourceSchema, logged, sql);
      if (lookup === undefined) continue;
      await unlessUnknown(found, [path], async () => {
        const place = { path, side: compiled.source, tables };
        found.push(...(await from.aside(() => scans(source, lookup, place))));
      });
    }
  }
  return found;
}

/** An `also` that is a whole select, over one row as the log would hold it. */
function alsoLookup(schema: string, logged: LoggedTable, sql: string): string | undefined {
  if (!/^\s*(select|with)\b/i.test(sql)) return undefined;
  const columns = logged.columns.map(({ name }) => ident(name)).join(", ");
  return `select cf_k.* from (select ${columns} from ${relation(schema, logged.name)} limit 1 offset 0) as ${ident(logged.name)} cross join lateral (${sql}\n) cf_k`;
}

async function scans(
  source: pg.Client,
  sql: string,
  place: { path: string; side: "old" | "new"; tables: ReadonlyMap<string, Table> },
): Promise<Finding[]> {
  await run(source, "set local enable_seqscan = off");
  await run(source, "set local enable_hashjoin = off");
  await run(source, "set local enable_mergejoin = off");
  const [row] = await run(source, `explain (verbose, format json) ${sql}`);
  const [{ Plan: plan }] = JSON.parse(row?.[0] ?? "[{}]") as [{ Plan: PlanNode }];
  return scannedIn(plan, []).flatMap(({ name, alias, condition }) => {
    const table = place.tables.get(name);
    if (table === undefined || table.estimatedRows < LARGE_ROWS) return [];
    const columns = table.columns
      .map((column) => column.name)
      .filter((column) => names(condition, alias, column));
    if (columns.length === 0) return [];
    return [
      {
        severity: "warning" as const,
        path: place.path,
        what: `reads the whole table ${name} for every changed row: no index serves ${columns.join(", ")}`,
        fix: {
          where: place.side,
          text: `create index concurrently on ${relation(table.schema, table.name)} (${columns.map(ident).join(", ")});`,
          destructive: false,
        },
      },
    ];
  });
}

/** Whether a condition, in which every column is qualified, uses this one. */
function names(condition: string, alias: string, column: string): boolean {
  const pattern = `(?<![\\w"])${namePattern(alias)}\\.${namePattern(column)}(?![\\w"])`;
  return new RegExp(pattern).test(condition);
}

interface Scan {
  readonly name: string;
  readonly alias: string;
  readonly condition: string;
}

/** Whole-table scans, with their own condition and those of the joins above them. */
function scannedIn(node: PlanNode, above: readonly string[]): Scan[] {
  const conditions = [
    ...above,
    node["Join Filter"] ?? "",
    node["Hash Cond"] ?? "",
    node["Merge Cond"] ?? "",
  ];
  const name = node["Relation Name"];
  const here =
    node["Node Type"] === "Seq Scan" && name !== undefined
      ? [{ name, alias: node.Alias ?? name, condition: [node.Filter, ...conditions].join(" ") }]
      : [];
  return [...here, ...(node.Plans ?? []).flatMap((child) => scannedIn(child, conditions))];
}
