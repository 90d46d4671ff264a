import { createHash } from "node:crypto";
import pg from "pg";

export interface AppDatabaseOptions {
  readonly databaseUrl: string;
  /** Schema of the app's tables; `public` by default. */
  readonly schema?: string;
}

/** What both apps read of a conversation besides its tags. Times as text: a JS date would cut the microseconds. */
export const COLUMNS = `c.id, c.user_id as "user", c.title, c.metadata, ${iso("c.created_at")} as created_at, ${iso("c.updated_at")} as updated_at`;

/** A row of `COLUMNS`. */
export interface ConversationRow {
  readonly id: string;
  readonly user: string;
  readonly title: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly created_at: string;
  readonly updated_at: string;
}

export function openPool({ databaseUrl, schema = "public" }: AppDatabaseOptions): pg.Pool {
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    max: 10,
    options: `-c search_path=${schema}`,
    application_name: "colonycraft",
  });
  // A server that goes away ends idle connections; the pool opens new ones, the app must not die of it.
  pool.on("error", () => undefined);
  return pool;
}

/** A statement that each connection parses once, and the server plans anew only while that pays. */
export function prepared(text: string): (values: readonly unknown[]) => pg.QueryConfig {
  // The server keeps 63 bytes of a name.
  const name = createHash("sha256").update(text).digest("hex").slice(0, 32);
  return (values) => ({ name, text, values: [...values] });
}

/** Runs `work` in one transaction. */
export async function inTransaction<T>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query("begin");
    const result = await work(client);
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch((cause: unknown) => {
      broken = cause instanceof Error ? cause : new Error(String(cause));
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

function iso(column: string): string {
  return `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}
