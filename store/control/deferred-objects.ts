import { query, type ControlStore } from "./open.ts";

/** An index or a foreign key of a new table that is dropped during the copy, with everything that makes it again. */
export interface DeferredObject {
  readonly kind: "index" | "foreign key";
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  /** Of an index: `CREATE INDEX …`; of a foreign key: `FOREIGN KEY …`. Every name in it has its schema. */
  readonly definition: string;
  /** Of an index; empty: the database's own. */
  readonly tablespace: string;
  readonly comment: string | null;
  /** A foreign key that was NOT VALID is not proven afterwards either. */
  readonly validated: boolean;
}

export interface DeferredRow extends DeferredObject {
  /** `unproven`: a foreign key that is there again, but whose rows are not yet proven to fulfil it. */
  readonly state: "dropped" | "building" | "unproven" | "built";
  /** Why it could not be built or proven, the last time it was tried. */
  readonly error: string | undefined;
}

/**
 * Writes down what is about to be dropped; durable when it returns. What was dropped before and is not whole again keeps its first
 * definition: what stands in the catalog meanwhile may be half of it (a foreign key that is not yet proven).
 */
export async function recordDeferred(
  store: ControlStore,
  objects: readonly DeferredObject[],
): Promise<void> {
  const client = await store.pool.connect();
  try {
    await client.query("begin; set local synchronous_commit = on");
    for (const { kind, schema, table, name, ...made } of objects)
      await client.query(
        `insert into ${store.table("deferred_object")} as d (kind, schema_name, tbl, name, definition, tablespace, comment, validated)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (schema_name, tbl, name) do update set state = 'dropped', error = null, at = clock_timestamp(),
           kind = case when d.state = 'built' then excluded.kind else d.kind end,
           definition = case when d.state = 'built' then excluded.definition else d.definition end,
           tablespace = case when d.state = 'built' then excluded.tablespace else d.tablespace end,
           comment = case when d.state = 'built' then excluded.comment else d.comment end,
           validated = case when d.state = 'built' then excluded.validated else d.validated end`,
        [kind, schema, table, name, made.definition, made.tablespace, made.comment, made.validated],
      );
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

/** All that was ever deferred, in the order in which it is built: indexes, then foreign keys, which look up by them. */
export async function readDeferred(store: ControlStore): Promise<DeferredRow[]> {
  const rows = await query<StoredRow>(
    store,
    `select kind, schema_name, tbl, name, definition, tablespace, comment, validated, state, error
     from ${store.table("deferred_object")} order by kind = 'foreign key', schema_name, tbl, name`,
  );
  return rows.map(({ schema_name: schema, tbl: table, error, ...row }) => ({
    ...row,
    schema,
    table,
    error: error ?? undefined,
  }));
}

/** How far an object is. */
export async function setDeferred(
  store: ControlStore,
  { schema, table, name }: Pick<DeferredObject, "schema" | "table" | "name">,
  { state, error }: { readonly state: DeferredRow["state"]; readonly error?: string | undefined },
): Promise<void> {
  await query(
    store,
    `update ${store.table("deferred_object")} set state = $4, error = $5, at = clock_timestamp()
     where schema_name = $1 and tbl = $2 and name = $3`,
    [schema, table, name, state, error ?? null],
  );
}

interface StoredRow extends Omit<DeferredRow, "schema" | "table" | "error"> {
  schema_name: string;
  tbl: string;
  error: string | null;
}
