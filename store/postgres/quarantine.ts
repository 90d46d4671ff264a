import type pg from "pg";
import type { Direction } from "../../config/words.ts";
import { run } from "./statement.ts";

/** A key whose row a mapping rejects or the target refuses. */
export interface Refusal {
  readonly mapping: string;
  readonly sourceTable: string;
  readonly key: readonly string[];
  readonly reason: string;
  readonly sqlstate: string | undefined;
  /** `deferred`: a foreign-key or unique refusal that may heal by itself; only a second refusal quarantines. */
  readonly state: "deferred" | "quarantined";
}

export interface QuarantineRow extends Omit<Refusal, "state"> {
  readonly id: string;
  readonly direction: Direction;
  readonly state: "deferred" | "quarantined" | "accepted";
  readonly at: string;
  readonly attempts: number;
}

/** A refusal with what was refused: a digest of the rows the mapping read, undefined if they cannot be read. */
export interface RefusedRow {
  readonly refusal: Refusal;
  readonly digest: string | undefined;
}

/**
 * Records refusals in the sync's own transaction and returns those whose loss nobody has accepted. An acceptance holds
 * as long as the same row is refused for the same reason, however often a copy or a repair tries it; a row that
 * changed, or is refused for another reason, is a new entry with a number of its own, so that nobody accepts what they
 * have not seen.
 */
export async function recordRefusals(
  client: pg.ClientBase,
  direction: Direction,
  refused: readonly RefusedRow[],
): Promise<Refusal[]> {
  if (refused.length === 0) return [];
  const distinct = new Map(refused.map((row) => [entryName(row.refusal), row]));
  const values = [direction, JSON.stringify([...distinct.values()].map(toRecord))];
  await run(
    client,
    `delete from crossfade.quarantine q using json_to_recordset($2::json) as r(${RECORD})
     where q.direction = $1 and q.mapping = r.mapping and q.key = r.key
       and (q.row_digest = r.row_digest and q.reason = r.reason) is not true`,
    values,
  );
  const recorded = await run(
    client,
    `insert into crossfade.quarantine as q (direction, mapping, source_table, key, reason, sqlstate, state, row_digest)
     select $1, r.mapping, r.source_table, r.key, r.reason, r.sqlstate, r.state, r.row_digest
     from json_to_recordset($2::json) as r(${RECORD})
     on conflict (direction, mapping, key) do update set
       sqlstate = excluded.sqlstate, attempts = q.attempts + 1, at = clock_timestamp(),
       state = case when q.state = 'accepted' then q.state else excluded.state end
     returning mapping, to_json(key)::text, state`,
    values,
  );
  for (const [mapping, key, state] of recorded)
    if (state === "accepted") distinct.delete(`${mapping}${key}`);
  return [...distinct.values()].map((row) => row.refusal);
}

const RECORD =
  "mapping text, source_table text, key text[], reason text, sqlstate text, state text, row_digest text";

function toRecord({ refusal, digest }: RefusedRow): Record<string, unknown> {
  const { mapping, sourceTable, key, reason, sqlstate, state } = refusal;
  return { mapping, source_table: sourceTable, key, reason, sqlstate, state, row_digest: digest };
}

function entryName(refusal: Refusal): string {
  return refusal.mapping + jsonKey(refusal.key);
}

/** Keys of a source table that have just been synced right are healed, except those refused again. */
export async function clearHealed(
  client: pg.ClientBase,
  direction: Direction,
  sourceTable: string,
  keys: readonly (readonly string[])[],
  refused: readonly Refusal[],
): Promise<void> {
  await run(
    client,
    `delete from crossfade.quarantine q where direction = $1 and source_table = $2
       and to_json(q.key)::text = any($3::text[]) and not (mapping || to_json(q.key)::text = any($4::text[]))`,
    [direction, sourceTable, keys.map(jsonKey), refused.map(entryName)],
  );
}

/** The text Postgres' to_json gives for a text array: the identity of a key in statements. */
function jsonKey(key: readonly string[]): string {
  return JSON.stringify(key);
}

export async function listQuarantine(
  client: pg.ClientBase,
  direction: Direction,
): Promise<QuarantineRow[]> {
  const rows = await run(
    client,
    `select id::text, mapping, source_table, to_json(key)::text, reason, sqlstate, state, at::text, attempts::text
     from crossfade.quarantine where direction = $1 order by id`,
    [direction],
  );
  return rows.map(([id, mapping, sourceTable, key, reason, sqlstate, state, at, attempts]) => ({
    id: id ?? "",
    direction,
    mapping: mapping ?? "",
    sourceTable: sourceTable ?? "",
    key: JSON.parse(key ?? "[]") as string[],
    reason: reason ?? "",
    sqlstate: sqlstate ?? undefined,
    state: state as QuarantineRow["state"],
    at: at ?? "",
    attempts: Number(attempts),
  }));
}

/** A named person accepts that a key is left behind. Returns false if there is no such open row. */
export async function acceptLoss(
  client: pg.ClientBase,
  id: string,
  by: string,
  reason: string,
): Promise<boolean> {
  const rows = await run(
    client,
    `update crossfade.quarantine set state = 'accepted', accepted_by = $2, accepted_reason = $3
     where id = $1::bigint and state <> 'accepted' returning id`,
    [id, by, reason],
  );
  return rows.length > 0;
}
