import type pg from "pg";
import type { Side } from "../../config/words.ts";
import { logTable, turnSequence, turnTables } from "./follow-schema.ts";
import { literal } from "./quote.ts";

/** After this many handled rows, another table's turn: so many dead rows a pass has to walk over at most, or twice as many. */
const ROWS_PER_TURN = 20_000;

/**
 * Keeps the log small and quick, also while an old snapshot keeps vacuum from cleaning it: rows go to its tables in turns,
 * and those that are not written to and are empty are truncated.
 */
export class LogRotation {
  readonly #side: Side;
  readonly #client: pg.Client;
  #handled = 0;

  constructor(side: Side, client: pg.Client) {
    this.#side = side;
    this.#client = client;
  }

  /** Call with the number of rows that were deleted from the log. */
  async handled(rows: number): Promise<void> {
    this.#handled += rows;
    if (this.#handled < ROWS_PER_TURN) return;
    this.#handled = 0;
    await this.#client.query(truncateSql(this.#side));
    // After the commit: nobody who is sent to a table finds it locked.
    await this.#client.query(nextTurnSql(this.#side));
  }
}

/**
 * Truncates what is not written to and has been emptied. Emptiness is looked at while the table is locked, in a
 * statement of its own: nothing uncommitted is left then, and everything committed is seen. The lock is not waited for:
 * whoever logs never queues behind us. Not during an attempt, which locks the state row before it counts on fences.
 */
function truncateSql(side: Side): string {
  const tables = [logTable(side), ...turnTables(side)].map(literal).join(", ");
  return `do $$
declare
  candidate text;
  is_empty boolean;
  current text := ${literal(`${logTable(side)}_r`)} || (select last_value from ${turnSequence(side)});
begin
  perform from crossfade.state where side = ${literal(side)} and attempt_ended for share skip locked;
  if not found then return; end if;
  foreach candidate in array array[${tables}] loop
    continue when candidate = current or pg_relation_size(candidate::regclass) = 0;
    begin
      execute format('lock table only %s in access exclusive mode nowait', candidate);
      execute format('select not exists (select from only %s)', candidate) into is_empty;
      if is_empty then execute format('truncate only %s', candidate); end if;
    exception when lock_not_available then null;
    end;
  end loop;
end $$`;
}

/** The turn goes to a table that is empty on disk; if there is none it stays where it is. */
function nextTurnSql(side: Side): string {
  const turns = turnSequence(side);
  const tables = turnTables(side).map((table, turn) => `(${turn}, ${literal(table)}::regclass)`);
  return `select setval(${literal(turns)}, n.turn) from (
      select t.turn from (values ${tables.join(", ")}) t(turn, name), ${turns} s
      where t.turn <> s.last_value and pg_relation_size(t.name) = 0 order by (t.turn - s.last_value + 3) % 3 limit 1) n`;
}
