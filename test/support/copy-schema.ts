import { pipeline } from "node:stream/promises";
import type pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { withClient } from "./databases.ts";

/** Makes a schema from a file's SQL in `scratch` and fills it with the rows of the same tables in `public` elsewhere. */
export async function copyRows(
  scratch: pg.Client,
  schema: string,
  source: { readonly url: string; readonly sql: string },
): Promise<void> {
  await scratch.query(`create schema ${schema}; set search_path = ${schema}`);
  await scratch.query(source.sql);
  await scratch.query("reset search_path; set session_replication_role = replica");
  const tables = await storedColumns(scratch, schema);
  await scratch.query(`truncate ${tables.map(({ table }) => `${schema}.${table}`).join(", ")}`);
  await withClient(source.url, async (client) => {
    for (const { table, columns } of tables) {
      const rows = client.query(copyTo(`copy (select ${columns} from public.${table}) to stdout`));
      await pipeline(
        rows,
        scratch.query(copyFrom(`copy ${schema}.${table} (${columns}) from stdin`)),
      );
    }
  });
  await scratch.query("reset session_replication_role");
}

/** Columns that a row brings along; the database computes the others. */
async function storedColumns(client: pg.Client, schema: string) {
  const { rows } = await client.query<{ table: string; columns: string }>(
    `select c.relname as table, string_agg(quote_ident(attname), ', ' order by attnum) as columns
     from pg_class c join pg_attribute a on a.attrelid = c.oid
     where c.relnamespace = $1::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped and attgenerated = ''
     group by 1`,
    [schema],
  );
  return rows;
}
