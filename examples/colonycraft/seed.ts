import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import pg from "pg";

export interface SeedOptions {
  readonly databaseUrl: string;
  /** 100,000 by default. */
  readonly conversations?: number;
  /** 200 by default. */
  readonly users?: number;
  /** The same seed makes the same rows. */
  readonly seed?: number;
}

/** Creates the tables of one side in the database's `public` schema. */
export async function createSchema(side: "old" | "new", databaseUrl: string): Promise<void> {
  const sql = await readFile(new URL(`${side}-schema.sql`, import.meta.url), "utf8");
  await withClient(databaseUrl, (client) => client.query(sql));
}

/** The ids of the seeded users. */
export function userIds({
  users = 200,
  seed = 1,
}: Pick<SeedOptions, "users" | "seed"> = {}): string[] {
  return Array.from({ length: users }, (_, index) => {
    const hex = createHash("md5").update(`user:${seed}:${index}`).digest("hex");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  });
}

/** Fills the old schema. All made in the database, from hashes of `seed` and a number: fast, and the same every time. */
export async function seed(options: SeedOptions): Promise<void> {
  const { databaseUrl, conversations = 100_000, users = 200, seed: number = 1 } = options;
  await withClient(databaseUrl, async (client) => {
    await client.query("begin");
    await client.query(USERS, [number, users]);
    await client.query(CONVERSATIONS, [number, users, conversations]);
    await client.query("commit");
    await client.query("vacuum (analyze) users, conversations");
  });
}

const USERS = `
  insert into users (id, name, created_at)
  select md5('user:' || $1::int || ':' || n)::uuid, 'User ' || n, timestamptz '2024-01-01Z' + n * interval '1 hour'
  from generate_series(0, $2::int - 1) n`;

// One fifth without a category; one quarter of the others with one to three more tags; names that need care in SQL,
// JSON and UTF-8. `h` are hashes: 0 to 2^24 - 1.
const CONVERSATIONS = `
  with names(names) as (values (array['work', 'home', 'travel', 'recipes', 'Ideen für später', 'code review', 'O''Neill',
    'say "hi"', 'back\\slash', '日本語', 'tax 2025', 'a:b'])),
  rows as (
    select n, h1, h2, h3, case when h1 % 5 = 0 then 0 when h2 % 4 = 0 then 2 + h3 % 3 else 1 end as tags
    from generate_series(0, $3::int - 1) n
    cross join lateral (select md5('conversation:' || $1::int || ':' || n) as hash) m
    cross join lateral (select ('x' || substr(hash, 1, 6))::bit(24)::int as h1, ('x' || substr(hash, 7, 6))::bit(24)::int as h2,
      ('x' || substr(hash, 13, 6))::bit(24)::int as h3) h)
  insert into conversations (id, user_id, title, metadata, created_at, updated_at)
  select md5('conversation:' || $1::int || ':' || n)::uuid, md5('user:' || $1::int || ':' || h2 % $2::int)::uuid,
    'Conversation ' || n || ' about ' || names[1 + h3 % 12],
    jsonb_build_object('model', (array['small', 'medium', 'large'])[1 + h1 % 3], 'messages', h3 % 400)
      || case when h2 % 10 = 0 then '{"pinned": true}' else '{}'::jsonb end
      || case when tags = 0 then '{}' else jsonb_build_object('category', names[1 + h3 % 12]) end
      || case when tags < 2 then '{}' else jsonb_build_object('more_tags',
           (select jsonb_agg(names[1 + (h3 + i) % 12] order by i) from generate_series(1, tags - 1) i)) end,
    timestamptz '2025-01-01Z' + n * interval '1 minute',
    timestamptz '2025-01-01Z' + n * interval '1 minute' + h1 * interval '1 microsecond'
  from rows cross join names`;

async function withClient(
  databaseUrl: string,
  work: (client: pg.Client) => Promise<unknown>,
): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

async function isSeeded(databaseUrl: string): Promise<boolean> {
  let found = false;
  await withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ found: boolean }>(
      "select to_regclass('users') is not null as found",
    );
    found = rows[0]?.found === true;
  });
  return found;
}

if (import.meta.main) {
  const {
    OLD_DATABASE_URL,
    NEW_DATABASE_URL,
    CONVERSATIONS: conversations = "100000",
  } = process.env;
  if (OLD_DATABASE_URL === undefined || NEW_DATABASE_URL === undefined) {
    throw new Error("OLD_DATABASE_URL and NEW_DATABASE_URL must be set");
  }
  if (await isSeeded(OLD_DATABASE_URL)) {
    process.stdout.write("the old database has its tables already: nothing to do\n");
  } else {
    await createSchema("old", OLD_DATABASE_URL);
    await createSchema("new", NEW_DATABASE_URL);
    await seed({ databaseUrl: OLD_DATABASE_URL, conversations: Number(conversations) });
    process.stdout.write(`${conversations} conversations of 200 users\n`);
  }
}
