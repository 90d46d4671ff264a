import type pg from "pg";
import type { Plan } from "../../config/plan-types.ts";
import type { Side } from "../../config/words.ts";
import type { CompiledDirection, Driver, Reader } from "../../store/postgres/mapping.ts";
import { ident, relation } from "../../store/postgres/quote.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../../store/postgres/session.ts";
import { run } from "../../store/postgres/statement.ts";

/** Which rows of a driving table are looked at. */
export interface Sample {
  /** Rows of the table: counted if all are looked at, else the planner's estimate. */
  readonly total: number;
  readonly complete: boolean;
  /** How the rows were chosen, for people. */
  readonly how: string;
  /** A condition on `cf_q`, the relation that a reader reads; undefined: all rows. */
  readonly where: string | undefined;
}

/** Up to this size every row takes part in the draw; of larger tables whole blocks are drawn, and the others not read. */
const DRAWN_BY_ROW = 5_000_000;
/** More than needed is drawn, because estimates are. */
const SURPLUS = 1.2;

/**
 * The side that rows are read from: one read-only snapshot, so that rows of several tables belong together. The same sample
 * is drawn for every reader of a table.
 */
export class Source implements AsyncDisposable {
  readonly client: pg.Client;
  readonly #schema: string;
  /** undefined: every row of every table. */
  readonly #limit: number | undefined;
  readonly #samples = new Map<string, Sample>();

  private constructor(client: pg.Client, schema: string, limit: number | undefined) {
    this.client = client;
    this.#schema = schema;
    this.#limit = limit;
  }

  static async open(
    plan: Plan,
    side: Side,
    options: { readonly limit: number | undefined; readonly statementTimeoutMs: number },
  ): Promise<Source> {
    const client = await openSession({
      url: plan[side].database,
      name: sideLabel(side),
      application: applicationName(plan.name, "check", String(process.pid)),
      searchPath: plan[side].schema,
      lockTimeoutMs: 2_000,
      statementTimeoutMs: options.statementTimeoutMs,
    });
    await run(client, "begin isolation level repeatable read, read only");
    return new Source(client, plan[side].schema, options.limit);
  }

  /** Runs `work`; if it fails, the snapshot stays usable. */
  async attempt<T>(work: () => Promise<T>): Promise<T> {
    await run(this.client, "savepoint cf_attempt");
    try {
      const result = await work();
      await run(this.client, "release savepoint cf_attempt");
      return result;
    } catch (error) {
      // A broken connection reports itself again; the first error says more.
      await this.client
        .query("rollback to savepoint cf_attempt; release savepoint cf_attempt")
        .catch(() => {});
      throw error;
    }
  }

  /** Runs `work` and takes back what it set. */
  async aside<T>(work: () => Promise<T>): Promise<T> {
    await run(this.client, "savepoint cf_aside");
    try {
      return await work();
    } finally {
      await this.client
        .query("rollback to savepoint cf_aside; release savepoint cf_aside")
        .catch(() => {});
    }
  }

  async sample(driver: Driver): Promise<Sample> {
    const known = this.#samples.get(driver.name);
    if (known !== undefined) return known;
    const sample = await this.attempt(() => this.#choose(driver));
    this.#samples.set(driver.name, sample);
    return sample;
  }

  async #choose(driver: Driver): Promise<Sample> {
    const table = relation(this.#schema, driver.name);
    const limit = this.#limit;
    const bound = limit === undefined ? "" : ` limit ${limit + 1}`;
    const [row] = await run(
      this.client,
      `select count(*)::text from (select from ${table}${bound}) cf_c`,
    );
    const rows = Number(row?.[0]);
    if (limit === undefined || rows <= limit)
      return { total: rows, complete: true, how: "all rows", where: undefined };
    const total = await this.#estimate(driver);
    const names = driver.key.map(({ name }) => ident(name));
    const sampled = (method: string) =>
      `(${names.map((name) => `cf_q.${name}`).join(", ")}) in (select ${names.join(", ")} from ${table}${method} limit ${limit})`;
    if (total <= limit)
      return {
        total: rows,
        complete: false,
        how: `the first ${limit.toLocaleString("en-US")} rows (the table's size is not known: it was never analysed)`,
        where: sampled(""),
      };
    const share = Math.min(100, (100 * limit * SURPLUS) / total);
    const [method, what] =
      total <= DRAWN_BY_ROW ? (["bernoulli", "rows"] as const) : (["system", "blocks"] as const);
    return {
      total,
      complete: false,
      how: `${what} drawn at random, ${limit.toLocaleString("en-US")} rows at most`,
      where: sampled(` tablesample ${method} (${share}) repeatable (1)`),
    };
  }

  async #estimate(driver: Driver): Promise<number> {
    const [row] = await run(
      this.client,
      `select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint::text from pg_partition_tree($1::text::regclass) p
       join pg_class c on c.oid = p.relid where p.isleaf`,
      [relation(this.#schema, driver.name)],
    );
    const [own] = await run(
      this.client,
      "select greatest(reltuples, 0)::bigint::text from pg_class where oid = $1::text::regclass",
      [relation(this.#schema, driver.name)],
    );
    return Math.max(Number(row?.[0]), Number(own?.[0]));
  }

  /** The rows of a reader that are in the sample of its table. */
  async rowsOf(compiled: CompiledDirection, driver: Driver, reader: Reader): Promise<string> {
    const { where } = await this.sample(driver);
    const base =
      reader.query === undefined
        ? relation(compiled.sourceSchema, driver.name)
        : `(${reader.query}\n)`;
    const columns = reader.columns.map(({ name }) => `cf_q.${ident(name)}`).join(", ");
    return `select ${columns} from ${base} as cf_q${where === undefined ? "" : ` where ${where}`}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeSession(this.client);
  }
}
