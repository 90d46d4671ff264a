import type pg from "pg";
import { directionFrom, type Side } from "../../config/words.ts";
import type { Feed, FeedBatch, FeedChange, FeedTruncate } from "./feed.ts";
import { logChannel, logTable } from "./follow-schema.ts";
import { run, runPrepared } from "./statement.ts";

interface LogBatch extends FeedBatch {
  readonly ids: readonly string[];
}

/**
 * The trigger feed: reads the log in id order in one statement, and deletes handled rows by id after the target's
 * commit. Never by a high-water mark: a lower id can commit later, and is then simply found by the next read.
 */
export class TriggerFeed implements Feed {
  readonly side: Side;
  readonly #client: pg.Client;

  constructor(side: Side, client: pg.Client) {
    this.side = side;
    this.#client = client;
  }

  async read(limit: number): Promise<LogBatch> {
    const rows = await runPrepared(
      this.#client,
      `select id::text, tbl::text, op::text, to_json(vals)::text, (extract(epoch from clock_timestamp() - at) * 1000)::text
       from ${logTable(this.side)} order by id limit $1::int`,
      [limit],
    );
    let fence: bigint | undefined;
    let oldestAgeMs = 0;
    const changes: (FeedChange | FeedTruncate)[] = [];
    for (const [id, table, op, values, age] of rows) {
      if (op === "f") {
        fence = BigInt(id ?? 0);
        continue;
      }
      oldestAgeMs = Math.max(oldestAgeMs, Number(age));
      changes.push(
        op === "t"
          ? { kind: "truncate", table: Number(table) }
          : {
              kind: "row",
              table: Number(table),
              values: JSON.parse(values ?? "[]") as (string | null)[],
            },
      );
    }
    return {
      changes,
      fence,
      oldestAgeMs,
      size: rows.length,
      full: rows.length === limit,
      ids: rows.map(([id]) => id ?? ""),
    };
  }

  async confirm(batch: FeedBatch, pass: bigint): Promise<void> {
    await runPrepared(
      this.#client,
      `with cf_gone as (delete from ${logTable(this.side)} where id = any($1::bigint[]) returning 1)
       insert into crossfade.confirmed as c (direction, pass) select '${directionFrom(this.side)}', $2::bigint from (select count(*) from cf_gone) n
       on conflict (direction) do update set pass = greatest(c.pass, excluded.pass)`,
      [(batch as LogBatch).ids, pass.toString()],
    );
  }

  async writeFence(): Promise<bigint> {
    return writeFence(this.#client, this.side);
  }

  /** The session belongs to whoever opened it. */
  async close(): Promise<void> {}
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
