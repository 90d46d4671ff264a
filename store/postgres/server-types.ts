import type pg from "pg";

/** What the server made up for itself ends here; types and functions above are somebody's own. */
export const FIRST_OWN_OID = 16_384;

type Answer = string | undefined;

/**
 * What one server says of types while a direction is compiled. Each type is asked for once: a hundred tables have few, and every
 * question is a way to the server and back.
 */
export class ServerTypes {
  readonly #client: pg.ClientBase;
  readonly #names = new Map<string, Answer>();
  readonly #structures = new Map<string, Answer>();

  constructor(client: pg.ClientBase) {
    this.#client = client;
  }

  /**
   * The name under which each type is known here, or undefined. A type of the other side's schema is looked for under its
   * own name first, then by its bare name through the search_path.
   */
  async namesOf(types: readonly string[], schema: string): Promise<Answer[]> {
    const keyOf = (type: string) => JSON.stringify([schema, type]);
    await this.#learn(this.#names, types, keyOf, (unknown) => this.#askNames(unknown, schema));
    return types.map((type) => this.#names.get(keyOf(type)));
  }

  /**
   * What each type is made of, down to types that Postgres brings: two servers may call different things by one name, and what one
   * sends as bytes the other may take for something else without noticing. Undefined: as bytes it cannot be sent, or is the number
   * of an object that has another number elsewhere (`regclass`).
   */
  async structuresOf(types: readonly Answer[]): Promise<Answer[]> {
    const known = types.filter((type) => type !== undefined);
    await this.#learn(this.#structures, known, String, (unknown) => this.#askStructures(unknown));
    return types.map((type) => (type === undefined ? undefined : this.#structures.get(type)));
  }

  async #learn(
    answers: Map<string, Answer>,
    types: readonly string[],
    keyOf: (type: string) => string,
    ask: (types: readonly string[]) => Promise<Answer[]>,
  ): Promise<void> {
    const unknown = [...new Set(types)].filter((type) => !answers.has(keyOf(type)));
    if (unknown.length === 0) return;
    const found = await ask(unknown);
    for (const [i, type] of unknown.entries()) answers.set(keyOf(type), found[i]);
  }

  async #askNames(types: readonly string[], schema: string): Promise<Answer[]> {
    const { rows } = await this.#client.query({
      text: `select coalesce(
             case when to_regtype(t.full_name) is not null then t.full_name end,
             case when to_regtype(t.bare) is not null then t.bare end)
           from (select full_name, position,
                   case when starts_with(full_name, quote_ident($2) || '.')
                        then substr(full_name, length(quote_ident($2)) + 2) else full_name end as bare
                 from unnest($1::text[]) with ordinality as u(full_name, position)) t order by position`,
      values: [types, schema],
      rowMode: "array",
    });
    return (rows as [string | null][]).map(([name]) => name ?? undefined);
  }

  async #askStructures(types: readonly string[]): Promise<Answer[]> {
    const { rows } = await this.#client.query({
      text: `with recursive part(position, path, oid) as (
             select position, '', to_regtype(name)::oid from unnest($1::text[]) with ordinality as u(name, position)
             union all
             select part.position, part.path || inner_type.step, inner_type.oid
             from part join pg_type t on t.oid = part.oid and (t.oid >= ${FIRST_OWN_OID} or t.typcategory = 'A')
             cross join lateral (
               select 'domain/' as step, t.typbasetype as oid where t.typtype = 'd'
               union all select 'array/', t.typelem where t.typcategory = 'A' and t.typelem <> 0
               union all select 'range/', r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
               union all select 'field ' || row_number() over (order by a.attnum) || '/', a.atttypid
                 from pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
             ) inner_type
           )
           select (select case when bool_and(t.typsend <> 0 and t.typreceive <> 0 and not (t.oid < ${FIRST_OWN_OID} and t.typname like 'reg%'))
                          then string_agg(part.path || t.typname, ',' order by part.path) end
                   from part join pg_type t on t.oid = part.oid where part.position = u.position)
           from generate_series(1, cardinality($1::text[])) as u(position) order by u.position`,
      values: [types],
      rowMode: "array",
    });
    return (rows as [string | null][]).map(([structure]) => structure ?? undefined);
  }
}
