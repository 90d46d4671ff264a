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

/** Records refusals in the sync's own transaction. A second refusal of the same key replaces the first. */
export async function recordRefusals(
  client: pg.ClientBase,
  direction: Direction,
  refusals: readonly Refusal[],
): Promise<void> {
  for (const refusal of refusals) {
    await run(
      client,
      `insert into crossfade.quarantine as q (direction, mapping, source_table, key, reason, sqlstate, state)
       values ($1, $2, $3, $4, $5, $6, $7)
       on conflict (direction, mapping, key) do update set
         reason = excluded.reason, sqlstate = excluded.sqlstate, attempts = q.attempts + 1,
         state = excluded.state, at = clock_timestamp(), accepted_by = null, accepted_reason = null`,
      [
        direction,
        refusal.mapping,
        refusal.sourceTable,
        [...refusal.key],
        refusal.reason,
        refusal.sqlstate ?? null,
        refusal.state,
      ],
    );
  }
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
    [
      direction,
      sourceTable,
      keys.map(jsonKey),
      refused.map((refusal) => refusal.mapping + jsonKey(refusal.key)),
    ],
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
