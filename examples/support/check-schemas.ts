import { isDeepStrictEqual } from "node:util";
import pg from "pg";
import type { Conversation } from "../colonycraft/api.ts";
import type { Expected } from "./traffic-client.ts";

export interface CheckOptions {
  readonly oldUrl: string;
  readonly newUrl: string;
  /** From `Traffic.expected()`, read while the traffic was paused or stopped. */
  readonly expected: ReadonlyMap<string, Expected>;
  /** Where the old side's table is: after `done` it is renamed aside. */
  readonly old?: { readonly schema?: string; readonly conversations?: string };
  readonly new?: {
    readonly schema?: string;
    readonly conversations?: string;
    readonly tags?: string;
    readonly conversationTags?: string;
  };
}

export interface CheckResult {
  /** Acknowledged writes that were looked for: `in_both + lost`. */
  readonly acknowledged: number;
  /** Those whose conversation is in both schemas as the last of them left it. */
  readonly in_both: number;
  /** All writes to a conversation that is not: any of them may be the lost one. */
  readonly lost: number;
  /** The first few lost ones. */
  readonly examples: readonly {
    readonly id: string;
    readonly side: "old" | "new";
    readonly expected: unknown;
    readonly found: unknown;
  }[];
}

const BATCH = 2_000;
const EXAMPLES = 10;

/** Compares every acknowledged write with what is stored, read straight from the tables of both sides. */
export async function checkBothSchemas(options: CheckOptions): Promise<CheckResult> {
  const readers = [
    { side: "old", url: options.oldUrl, sql: oldSql(options.old), form: oldForm },
    { side: "new", url: options.newUrl, sql: newSql(options.new), form: newForm },
  ] as const;
  const lost = new Set<string>();
  const examples: CheckResult["examples"][number][] = [];
  for (const { side, url, sql, form } of readers) {
    const stored = await readAll(url, sql, [...options.expected.keys()]);
    for (const [id, { conversation }] of options.expected) {
      const expected = conversation === null ? undefined : form(conversation);
      const found = stored.get(id);
      if (isDeepStrictEqual(found, expected)) continue;
      lost.add(id);
      if (examples.length < EXAMPLES) examples.push({ id, side, expected, found });
    }
  }
  const writes = (wanted: (id: string) => boolean) =>
    [...options.expected].reduce((sum, [id, entry]) => sum + (wanted(id) ? entry.writes : 0), 0);
  return {
    acknowledged: writes(() => true),
    in_both: writes((id) => !lost.has(id)),
    lost: writes((id) => lost.has(id)),
    examples,
  };
}

/** The stored rows by id, as JSON made by the database. */
async function readAll(
  url: string,
  sql: string,
  ids: readonly string[],
): Promise<Map<string, unknown>> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const found = new Map<string, unknown>();
    for (let start = 0; start < ids.length; start += BATCH) {
      const { rows } = await client.query<{ id: string; row: unknown }>(sql, [
        ids.slice(start, start + BATCH),
      ]);
      for (const { id, row } of rows) found.set(id, row);
    }
    return found;
  } finally {
    await client.end();
  }
}

const iso = (column: string) =>
  `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
const COMMON = `'user', c.user_id, 'title', c.title, 'metadata', c.metadata,
  'created_at', ${iso("c.created_at")}, 'updated_at', ${iso("c.updated_at")}`;

function oldSql({
  schema = "public",
  conversations = "conversations",
}: CheckOptions["old"] = {}): string {
  return `select c.id, jsonb_build_object(${COMMON}) as row from ${table(schema, conversations)} c where c.id = any ($1::uuid[])`;
}

function newSql(options: CheckOptions["new"] = {}): string {
  const {
    schema = "public",
    conversations = "conversations",
    tags = "tags",
    conversationTags = "conversation_tags",
  } = options;
  return `select c.id, jsonb_build_object(${COMMON}, 'tags', (
      select coalesce(jsonb_agg(jsonb_build_array(ct.position, t.name) order by ct.position, t.name), '[]')
      from ${table(schema, conversationTags)} ct left join ${table(schema, tags)} t on t.id = ct.tag_id and t.user_id = c.user_id
      where ct.conversation_id = c.id)) as row
    from ${table(schema, conversations)} c where c.id = any ($1::uuid[])`;
}

function table(schema: string, name: string): string {
  return `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)}`;
}

/** What the old schema must hold: the first tag as `category`, the rest in `more_tags`. */
function oldForm({
  user,
  title,
  metadata,
  tags: [category, ...more],
  created_at,
  updated_at,
}: Conversation): object {
  const tags = {
    ...(category === undefined ? {} : { category }),
    ...(more.length === 0 ? {} : { more_tags: more }),
  };
  return { user, title, metadata: { ...metadata, ...tags }, created_at, updated_at };
}

/** What the new schema must hold: every tag as a row, with its place. */
function newForm({ user, title, metadata, tags, created_at, updated_at }: Conversation): object {
  return {
    user,
    title,
    metadata,
    tags: tags.map((name, place) => [place, name]),
    created_at,
    updated_at,
  };
}
