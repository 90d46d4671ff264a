import { pipeline } from "node:stream/promises";
import type pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import type { Plan } from "../../config/plan-types.ts";
import type { Side } from "../../config/words.ts";
import { ident } from "../../store/postgres/quote.ts";
import {
  applicationName,
  closeSession,
  openSession,
  sideLabel,
} from "../../store/postgres/session.ts";
import { run, type TextRow } from "../../store/postgres/statement.ts";
import { isRefusal } from "../../store/postgres/sync-keys.ts";
import { toColumnArrays, type TypedColumn, unnestRelation } from "../../store/postgres/sync-sql.ts";

/** Rows of the careful way to stage, at a time, and how many may be lost before it ends. */
const CAREFUL_ROWS = 500;
const MOST_LOST = 300;

export interface LabOptions {
  readonly plan: Plan;
  readonly side: Side;
  readonly statementTimeoutMs: number;
  /** Temporary tables come before the schema's own: they stand for tables that are still empty. */
  readonly shadows?: boolean;
}

/** Rows that a session keeps for itself, numbered in `cf_n`. */
export interface Staged {
  /** `pg_temp.…`, quoted. */
  readonly table: string;
  readonly columns: readonly TypedColumn[];
  readonly rows: number;
  /** The highest `cf_n`: numbers of rows that did not arrive are skipped. */
  readonly last: number;
  /** Rows that did not arrive, with why. */
  readonly lost: readonly Lost[];
  /** Rows that were not brought, because too many before them did not arrive. */
  readonly skipped: number;
}

interface Lost {
  readonly row: TextRow;
  readonly error: unknown;
}

/**
 * A session in which mappings are tried: it makes temporary tables and nothing else. Every transaction is read-only but
 * the ones that create these, so that no expression of the plan can write, whatever functions it calls. Temporary tables
 * go with the session.
 */
export class Lab implements AsyncDisposable {
  readonly client: pg.Client;
  #tables = 0;
  readonly #indexed = new Set<string>();

  private constructor(client: pg.Client) {
    this.client = client;
  }

  static async open({ plan, side, statementTimeoutMs, shadows }: LabOptions): Promise<Lab> {
    const client = await openSession({
      url: plan[side].database,
      name: sideLabel(side),
      application: applicationName(plan.name, "check", String(process.pid)),
      searchPath: plan[side].schema,
      statementTimeoutMs,
      lockTimeoutMs: 2_000,
    });
    await run(client, "set default_transaction_read_only = on");
    if (shadows === true)
      await run(client, `set search_path = pg_temp, ${ident(plan[side].schema)}`);
    return new Lab(client);
  }

  /** A name no table of the plan has, for a temporary table of ours. */
  name(): string {
    this.#tables += 1;
    return `cf_doctor_${this.#tables}`;
  }

  /** DDL on temporary tables: what a read-only transaction refuses. */
  async define(...statements: readonly string[]): Promise<void> {
    await this.#transaction("begin read write", async () => {
      for (const statement of statements) await run(this.client, statement);
    });
  }

  async readOnly<T>(work: () => Promise<T>): Promise<T> {
    return this.#transaction("begin read only", work);
  }

  async select(sql: string): Promise<TextRow[]> {
    return run(this.client, sql);
  }

  /** An empty temporary table with numbered rows. */
  async empty(columns: readonly TypedColumn[]): Promise<string> {
    const table = `pg_temp.${this.name()}`;
    const shape = columns.map(({ name, type }) => `${ident(name)} ${type}`);
    await this.define(
      `create temporary table ${table.slice("pg_temp.".length)} (${[...shape, "cf_n bigint generated always as identity"].join(", ")})`,
    );
    return table;
  }

  /** Small ranges of a table are read often once rows of it fail. */
  async indexRows(table: string): Promise<void> {
    if (this.#indexed.has(table)) return;
    this.#indexed.add(table);
    await this.define(`create index on ${table} (cf_n)`);
  }

  /**
   * Brings the result of `select` on `source`, an open transaction, here. If the rows do not arrive as they are, they are
   * brought in small groups, and those that do not arrive are named.
   */
  async stage(source: pg.Client, select: string, columns: readonly TypedColumn[]): Promise<Staged> {
    const table = await this.empty(columns);
    const names = columns.map(({ name }) => ident(name)).join(", ");
    let failed: Pick<Staged, "lost" | "skipped"> = { lost: [], skipped: 0 };
    try {
      await this.readOnly(async () => {
        const rows = source.query(copyTo(`copy (${select}) to stdout`));
        await pipeline(rows, this.client.query(copyFrom(`copy ${table} (${names}) from stdin`)));
        await run(this.client, `analyze ${table}`);
      });
    } catch (error) {
      if (!isRefusal(error)) throw error;
      failed = await this.#stageCarefully(source, select, table, columns);
    }
    return { table, columns, ...failed, ...(await this.#counted(table)) };
  }

  /** Keeps the result of a query of this session. */
  async keep(select: string, columns: readonly TypedColumn[]): Promise<Staged> {
    const table = await this.empty(columns);
    const names = columns.map(({ name }) => ident(name)).join(", ");
    await this.readOnly(async () => {
      await run(this.client, `insert into ${table} (${names}) ${select}`);
      await run(this.client, `analyze ${table}`);
    });
    return { table, columns, lost: [], skipped: 0, ...(await this.#counted(table)) };
  }

  async #counted(table: string): Promise<{ rows: number; last: number }> {
    const [row] = await this.select(
      `select count(*)::text, coalesce(max(cf_n), 0)::text from ${table}`,
    );
    return { rows: Number(row?.[0]), last: Number(row?.[1]) };
  }

  async #stageCarefully(
    source: pg.Client,
    select: string,
    table: string,
    columns: readonly TypedColumn[],
  ): Promise<Pick<Staged, "lost" | "skipped">> {
    const lost: Lost[] = [];
    await run(source, `declare cf_rows cursor for ${select}`);
    let more = true;
    while (more && lost.length < MOST_LOST) {
      const rows = await run(source, `fetch ${CAREFUL_ROWS} from cf_rows`);
      more = rows.length > 0;
      if (more) await this.#insertRows(table, columns, rows, lost);
    }
    const { rowCount } = await source.query("move forward all in cf_rows");
    await run(source, "close cf_rows");
    return { lost, skipped: rowCount ?? 0 };
  }

  async #insertRows(
    table: string,
    columns: readonly TypedColumn[],
    rows: readonly TextRow[],
    lost: Lost[],
  ): Promise<void> {
    const names = columns.map(({ name }) => ident(name)).join(", ");
    try {
      await this.readOnly(() =>
        run(
          this.client,
          `insert into ${table} (${names}) select * from ${unnestRelation(columns, 1)} cf_u`,
          toColumnArrays(rows, columns.length),
        ),
      );
    } catch (error) {
      if (!isRefusal(error)) throw error;
      const [row] = rows;
      if (rows.length === 1 && row !== undefined) {
        lost.push({ row, error });
        return;
      }
      const middle = rows.length >> 1;
      await this.#insertRows(table, columns, rows.slice(0, middle), lost);
      await this.#insertRows(table, columns, rows.slice(middle), lost);
    }
  }

  async #transaction<T>(begin: string, work: () => Promise<T>): Promise<T> {
    await run(this.client, begin);
    try {
      const result = await work();
      await run(this.client, "commit");
      return result;
    } catch (error) {
      await this.client.query("rollback").catch(() => {});
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeSession(this.client);
  }
}
