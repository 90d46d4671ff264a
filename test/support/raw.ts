import pg from "pg";

/** A plain session, as an app or a person with psql has it. The caller ends it. */
export async function openRaw(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: "test app" });
  await client.connect();
  return client;
}
