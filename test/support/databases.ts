import { randomBytes } from "node:crypto";
import pg from "pg";
import { inject } from "vitest";

/** A fresh pair of databases, `old` and `new`, on two different servers. They are never dropped: the servers are thrown away. */
export interface DatabasePair {
  readonly oldUrl: string;
  readonly newUrl: string;
}

export async function createDatabasePair(): Promise<DatabasePair> {
  const { oldPort, newPort } = inject("postgres");
  const name = `t_${randomBytes(6).toString("hex")}`;
  const [oldUrl, newUrl] = await Promise.all([
    createDatabase(oldPort, `${name}_old`),
    createDatabase(newPort, `${name}_new`),
  ]);
  return { oldUrl, newUrl };
}

/** Major version of Postgres that the tests run on. */
export function postgresVersion(): number {
  return inject("postgres").version;
}

/** One fresh database, for migrations between two schemas of the same database. */
export async function createSingleDatabase(): Promise<string> {
  return createDatabase(inject("postgres").oldPort, `t_${randomBytes(6).toString("hex")}`);
}

async function createDatabase(port: number, name: string): Promise<string> {
  const url = (database: string) => `postgres://postgres:postgres@127.0.0.1:${port}/${database}`;
  await withClient(url("postgres"), (client) =>
    client.query(`create database ${client.escapeIdentifier(name)}`),
  );
  return url(name);
}

/** Runs `work` on a connection of its own and closes it. */
export async function withClient<T>(
  url: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  // A server that a test takes down may end the session after its last query.
  client.on("error", () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
