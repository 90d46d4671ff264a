import { onTestFinished } from "vitest";
import type { MappingPlan } from "../../config/plan-types.ts";
import { createDatabasePair, withClient } from "./databases.ts";
import type { DatabasePair } from "./databases.ts";
import { SyncWorld } from "./sync-world.ts";

/** A fresh pair of databases with a schema each. */
export async function openPair(oldSql: string, newSql: string): Promise<DatabasePair> {
  const urls = await createDatabasePair();
  await withClient(urls.oldUrl, (client) => client.query(oldSql));
  await withClient(urls.newUrl, (client) => client.query(newSql));
  return urls;
}

/** Follows the pair until the test ends. */
export async function follow(
  urls: DatabasePair,
  forward: readonly MappingPlan[],
): Promise<SyncWorld> {
  const world = await SyncWorld.open({ ...urls, forward });
  onTestFinished(() => world.close());
  return world;
}

/** Rows as text. */
export async function rows(client: SyncWorld["old"], sql: string): Promise<unknown[][]> {
  return (await client.query<unknown[]>({ text: sql, rowMode: "array" })).rows;
}
