import type pg from "pg";
import { directionFrom, type Side } from "../../config/words.ts";
import type { Feed, FeedBatch, FeedChange, FeedTruncate } from "./feed.ts";
import { confirmedSequence, logChannel, logTable } from "./follow-schema.ts";
import { LogRotation } from "./log-rotation.ts";
import { run, runPrepared } from "./statement.ts";

/** What a batch took from one table of the log. */
interface Taken {
  readonly table: string;
  /** Array literal, handed back as it came. */
  readonly ids: string;
}

interface LogBatch extends FeedBatch {
  readonly taken: readonly Taken[];
}

/**
 * The trigger feed: reads the log in id order in one statement, and deletes handled rows by id after the target's
 * commit. Never by a high-water mark: a lower id can commit later, and is then simply found by the next read.
 */
export class TriggerFeed implements Feed {
  readonly side: Side;
  readonly #client: pg.Client;
  readonly #rotation: LogRotation;

  constructor(side: Side, client: pg.Client) {
    this.side = side;
    this.#client = client;
    this.#rotation = new LogRotation(side, client);
  }

  async read(limit: number): Promise<LogBatch> {
    const groups = await runPrepared(this.#client, readSql(this.side, limit), []);
    let fence: bigint | undefined;
    let oldestAgeMs = 0;
    let size = 0;
    let traces: string[] = [];
    const changes: (FeedChange | FeedTruncate)[] = [];
    for (const [, , count, table, op, values, age, highest] of groups) {
      size += Number(count);
      if (op === "f") {
        fence = BigInt(highest ?? 0);
        if (values !== undefined && values !== null)
          traces = traces.concat(...(JSON.parse(values) as string[][]));
        continue;
      }
      oldestAgeMs = Math.max(oldestAgeMs, Number(age));
      if (op === "t") changes.push({ kind: "truncate", table: Number(table) });
      else
        for (const row of JSON.parse(values ?? "[]") as (string | null)[][])
          changes.push({ kind: "row", table: Number(table), values: row });
    }
    const taken = groups.map(([from, ids]) => ({ table: from ?? "", ids: ids ?? "{}" }));
    return { changes, fence, traces, oldestAgeMs, size, full: size === limit, taken };
  }

  async confirm(batch: FeedBatch, pass: bigint): Promise<void> {
    const byTable = Map.groupBy((batch as LogBatch).taken, ({ table }) => table);
    await runPrepared(this.#client, confirmSql(this.side, [...byTable.keys()]), [
      pass.toString(),
      ...[...byTable.values()].map(joinIds),
    ]);
    await this.#rotation.handled(batch.size);
  }

  async writeFence(): Promise<bigint> {
    return writeFence(this.#client, this.side);
  }

  /** The session belongs to whoever opened it. */
  async close(): Promise<void> {}
}

/**
 * The rows are gathered here, per table of the log and of the app: a row each costs the server and Node more than the
 * rest of the pass. The limit stands in the text, so that the planner knows that few are wanted and walks the ids.
 */
function readSql(side: Side, limit: number): string {
  return `with cf_log as materialized (
      select tableoid, id, tbl, op, vals, at from ${logTable(side)} order by id limit ${Math.round(limit)})
    select tableoid::regclass::text, array_agg(id)::text, count(*)::text, tbl::text, op::text, json_agg(vals) filter (where vals is not null)::text,
      (date_part('epoch', clock_timestamp() - min(at)) * 1000)::text, max(id)::text
    from cf_log group by tableoid, tbl, op`;
}

/** A crash may bring these rows back, and then they are synced again: the commit need not wait for the disk. */
function confirmSql(side: Side, tables: readonly string[]): string {
  const deletes = tables.map(
    (table, i) => `cf_gone${i} as (delete from only ${table} where id = any($${i + 2}::bigint[]))`,
  );
  const confirmed = confirmedSequence(directionFrom(side));
  return `with ${deletes.join(", ")}
    select setval('${confirmed}', greatest(last_value, $1::bigint))
    from ${confirmed}, set_config('synchronous_commit', 'off', true)`;
}

function joinIds(taken: readonly Taken[]): string {
  return `{${taken.map(({ ids }) => ids.slice(1, -1)).join(",")}}`;
}

/** Within a statement: its own commit waits for the local disk, and for no standby that may be away. */
export const FLUSH_COMMIT = "set_config('synchronous_commit', 'local', true)";

/**
 * Writes a fence to a side's log and wakes the mirror, in one statement. Returns the fence's id. It is flushed whatever the
 * database's setting: the WAL is read only as far as it is flushed, and an id that a crash takes back would be given twice.
 */
export async function writeFence(client: pg.ClientBase, side: Side): Promise<bigint> {
  const [row] = await run(
    client,
    `with cf_fence as (insert into ${logTable(side)} (tbl, op) values (0, 'f') returning id)
     select id::text, pg_notify('${logChannel(side)}', ''), ${FLUSH_COMMIT} from cf_fence`,
  );
  return BigInt(row?.[0] ?? 0);
}
