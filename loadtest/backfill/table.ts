/** What is copied in every contest: rows of about 150 bytes, two secondary indexes. */

const COLUMNS = (amount: string) =>
  `(id bigint primary key, account int not null, ${amount} not null, note text not null, created timestamptz not null)`;
const indexes = (table: string) =>
  `create index on ${table} (account); create index on ${table} (created);`;

export function oldTable(rows: number): string {
  return `create table events ${COLUMNS("amount numeric")};
  insert into events select n, n % 5000, (n % 100000) / 100.0, md5(n::text) || md5((n + 1)::text) || md5((n + 2)::text), timestamptz '2024-01-01' + n * interval '1 second' from generate_series(1, ${rows}) n;
  ${indexes("events")}`;
}

export function newTable(table: string): string {
  return `drop table if exists ${table}; create table ${table} ${COLUMNS("cents bigint")}; ${indexes(table)}`;
}

/** The mapping of the contests: a renamed table, and a column that is computed. */
export const MAPPING = { from: "events", set: { cents: "(amount * 100)::bigint" } };
/** The same in SQL. */
export const MAPPED = "select id, account, (amount * 100)::bigint, note, created from events";
