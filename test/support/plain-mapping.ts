import type pg from "pg";
import type { MappingPlan, MappingSet } from "../../config/plan-types.ts";

/**
 * A plan's mappings as plain INSERT … SELECT between schemas of one database: no sync, no staging, no locks. What a
 * mapping means, in the fewest words, to prove an example's SQL by itself.
 */
export class PlainMapping {
  readonly #client: pg.Client;

  constructor(client: pg.Client) {
    this.#client = client;
  }

  /** Fills the empty tables of schema `target` from schema `source`. */
  async apply({
    set,
    source,
    target,
  }: {
    set: MappingSet;
    source: string;
    target: string;
  }): Promise<void> {
    await this.#client.query("set session_replication_role = replica");
    for (const mapping of mappingsOf(set)) {
      await this.#client.query(`set search_path = ${source}`);
      await this.#client.query(await this.#insertSql(mapping, source, target));
    }
    await this.#client.query("reset session_replication_role; reset search_path");
  }

  /** Number of rows a mapping rejects, by mapping and reason; only those that reject any. */
  async rejected(set: MappingSet, source: string): Promise<Record<string, number>> {
    const found: Record<string, number> = {};
    await this.#client.query(`set search_path = ${source}`);
    for (const mapping of mappingsOf(set)) {
      for (const [reason, condition] of mapping.reject) {
        const count = await this.#count(
          `select from ${sourceOf(mapping, source)} where (${condition})`,
        );
        if (count > 0) found[`${mapping.path}: ${reason}`] = count;
      }
    }
    await this.#client.query("reset search_path");
    return found;
  }

  /**
   * Rows whose `own` columns do not say the source row they come from, by mapping. `own` is evaluated over the key
   * alone, as a sync does for a row that is gone.
   */
  async misowned(set: MappingSet, source: string): Promise<Record<string, number>> {
    const found: Record<string, number> = {};
    await this.#client.query(`set search_path = ${source}`);
    for (const mapping of mappingsOf(set)) {
      if (mapping.own === undefined || mapping.own === "none") continue;
      const key = (await this.#key(source, mapping.from.table))
        .map((name) => `k.${name}`)
        .join(", ");
      for (const [column, expression] of mapping.own) {
        const made = mapping.set.get(column) ?? column;
        const owner = `(select (${expression})::text from (select ${key} from ${mapping.from.table} as k
          where (${key}) = (${key.replaceAll("k.", `${mapping.from.table}.`)})) as ${mapping.from.table})`;
        const count =
          await this.#count(`select from (select (${made})::text as made, ${owner} as own
          from ${sourceOf(mapping, source)}${whereOf(mapping)}) r where made is distinct from own`);
        if (count > 0) found[`${mapping.path}.own.${column}`] = count;
      }
    }
    await this.#client.query("reset search_path");
    return found;
  }

  /** Driving keys that the `also` rules name, over all rows of their tables: by mapping and table. */
  async alsoKeys(set: MappingSet, source: string): Promise<Record<string, string[][]>> {
    const found: Record<string, string[][]> = {};
    await this.#client.query(`set search_path = ${source}`);
    for (const mapping of mappingsOf(set)) {
      for (const [table, sql] of mapping.from.also) {
        const rule = /^\s*select\b/i.test(sql) ? `(${sql}) as k` : `(select ${sql}) as k`;
        const { rows } = await this.#client.query({
          text: `select k.* from ${table}, lateral ${rule}`,
          rowMode: "array",
        });
        found[`${mapping.path}: ${table}`] = (rows as unknown[][]).map((row) => row.map(String));
      }
    }
    await this.#client.query("reset search_path");
    return found;
  }

  /** Rows that are in one of two schemas only, by table, as the text Postgres prints: 1.0 and 1.00 are two. */
  async differences(
    a: string,
    b: string,
    options: { except?: readonly string[] } = {},
  ): Promise<Record<string, string[]>> {
    const found: Record<string, string[]> = {};
    const { rows } = await this.#client.query<{ name: string }>(
      "select relname as name from pg_class where relnamespace = $1::regnamespace and relkind = 'r' order by 1",
      [a],
    );
    for (const { name } of rows) {
      if (options.except?.includes(name)) continue;
      const one = (first: string, second: string) =>
        `select '${first}: ' || row as row from (select t::text as row from ${first}.${name} t except all select t::text from ${second}.${name} t) d`;
      const result = await this.#client.query<{ row: string }>(
        `${one(a, b)} union all ${one(b, a)} order by 1 limit 10`,
      );
      if (result.rows.length > 0) found[name] = result.rows.map(({ row }) => row);
    }
    return found;
  }

  async #insertSql(mapping: MappingPlan, source: string, target: string): Promise<string> {
    const given = await this.#columns(`select * from ${sourceOf(mapping, source)} limit 0`);
    const columns = (await this.#writable(target, mapping.target)).filter(
      (name) => mapping.set.has(name) || given.includes(name),
    );
    const values = columns.map((name) => mapping.set.get(name) ?? `${mapping.from.table}.${name}`);
    const rejects = [...mapping.reject.values()].map(
      (condition) => `and (${condition}) is not true`,
    );
    return `insert into ${target}.${mapping.target} (${columns.join(", ")})
      select ${mapping.own === "none" ? "distinct" : ""} ${values.join(", ")} from ${sourceOf(mapping, source)}${whereOf(mapping)} ${rejects.join(" ")}`;
  }

  async #columns(sql: string): Promise<string[]> {
    return (await this.#client.query(sql)).fields.map((field) => field.name);
  }

  async #writable(schema: string, table: string): Promise<string[]> {
    const { rows } = await this.#client.query<{ name: string }>(
      `select attname as name from pg_attribute
       where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum`,
      [`${schema}.${table}`],
    );
    return rows.map(({ name }) => name);
  }

  async #key(schema: string, table: string): Promise<string[]> {
    const { rows } = await this.#client.query<{ name: string }>(
      `select a.attname as name from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
       where i.indrelid = $1::regclass and i.indisprimary order by array_position(i.indkey::int2[], a.attnum)`,
      [`${schema}.${table}`],
    );
    return rows.map(({ name }) => name);
  }

  async #count(sql: string): Promise<number> {
    const { rows } = await this.#client.query<{ count: number }>(
      `select count(*)::int from (${sql}) r`,
    );
    return rows[0]!.count;
  }
}

function mappingsOf(set: MappingSet): readonly MappingPlan[] {
  if (set.kind === "identity") throw new Error("an identity needs no proof");
  return set.mappings;
}

function sourceOf({ from }: MappingPlan, source: string): string {
  return from.query === undefined
    ? `${source}.${from.table} as ${from.table}`
    : `(${from.query}) as ${from.table}`;
}

function whereOf({ where }: MappingPlan): string {
  return ` where (${where ?? "true"})`;
}
