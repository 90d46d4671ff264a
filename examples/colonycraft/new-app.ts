import type pg from "pg";
import {
  closeOnSignal,
  type Conversation,
  type ConversationStore,
  createApi,
  listen,
  type RunningApp,
} from "./api.ts";
import {
  type AppDatabaseOptions,
  COLUMNS,
  type ConversationRow,
  inTransaction,
  openPool,
  prepared,
} from "./database.ts";

/** Starts the new app: tags are rows. */
export async function startNewApp(
  options: AppDatabaseOptions & { readonly port?: number },
): Promise<RunningApp> {
  return listen(createApi(createNewStore(openPool(options))), options.port ?? 0);
}

interface TaggedRow extends ConversationRow {
  readonly tags: string[];
}

const SELECT = `select ${COLUMNS}, array(
    select t.name from conversation_tags ct join tags t on t.id = ct.tag_id
    where ct.conversation_id = c.id order by ct.position) as tags
  from conversations c`;
const READ = prepared(`${SELECT} where c.id = $1`);
const LIST = prepared(`${SELECT} where user_id = $1 order by updated_at desc, id desc limit $2`);
const CREATE = prepared(
  `insert into conversations (id, user_id, title, metadata, created_at, updated_at)
   values ($1, $2, $3, $4, now(), now())`,
);
const LOCK = prepared("select from conversations where id = $1 for update");
const UPDATE = prepared(
  "update conversations set title = $2, metadata = $3, updated_at = now() where id = $1",
);
const REMOVE = prepared("delete from conversations where id = $1");
const REMOVE_TAGS = prepared("delete from conversation_tags where conversation_id = $1");
const REMOVE_OTHER_TAGS = prepared(
  `delete from conversation_tags ct using tags t
   where ct.conversation_id = $1 and t.id = ct.tag_id and t.name <> all ($2::text[])`,
);
// In the order of their ids: two conversations that add the same tags must not wait for each other.
const ADD_TAGS = prepared(
  `insert into tags (id, user_id, name)
   select md5($1::uuid || ':' || name)::uuid, $1, name from unnest($2::text[]) name order by 1
   on conflict do nothing`,
);
const TAG = prepared(
  `insert into conversation_tags as ct (conversation_id, tag_id, position)
   select $1, md5($2::uuid || ':' || name)::uuid, n - 1 from unnest($3::text[]) with ordinality t(name, n)
   on conflict (conversation_id, tag_id) do update set position = excluded.position where ct.position <> excluded.position`,
);

export function createNewStore(pool: pg.Pool): ConversationStore {
  return {
    async ping() {
      await pool.query("select 1");
    },
    async list(user, limit) {
      const { rows } = await pool.query<TaggedRow>(LIST([user, limit]));
      return rows.map(toConversation);
    },
    get: (id) => read(pool, id),
    create: ({ id, user, title, tags, metadata }) =>
      inTransaction(pool, async (client) => {
        await client.query(CREATE([id, user, title, metadata]));
        await addTags(client, { id, user, tags });
        return (await read(client, id))!;
      }),
    update: (id, change) =>
      inTransaction(pool, async (client) => {
        // Lock, then read in a later statement: one that waits for the lock would read the tags of before the wait.
        await client.query(LOCK([id]));
        const current = await read(client, id);
        if (current === undefined) return undefined;
        const { title, tags, metadata } = change(current);
        await client.query(UPDATE([id, title, metadata]));
        await client.query(REMOVE_OTHER_TAGS([id, tags]));
        await addTags(client, { id, user: current.user, tags });
        return read(client, id);
      }),
    remove: (id) =>
      inTransaction(pool, async (client) => {
        await client.query(LOCK([id]));
        await client.query(REMOVE_TAGS([id]));
        const { rowCount } = await client.query(REMOVE([id]));
        return rowCount === 1;
      }),
    close: () => pool.end(),
  };
}

async function read(db: pg.Pool | pg.PoolClient, id: string): Promise<Conversation | undefined> {
  const { rows } = await db.query<TaggedRow>(READ([id]));
  return rows[0] === undefined ? undefined : toConversation(rows[0]);
}

function toConversation({
  id,
  user,
  title,
  tags,
  metadata,
  created_at,
  updated_at,
}: TaggedRow): Conversation {
  return { id, user, title, category: tags[0] ?? null, tags, metadata, created_at, updated_at };
}

/** Makes `tags` the conversation's first ones, in this order. A tag's id follows from user and name (new-schema.sql). */
async function addTags(
  client: pg.PoolClient,
  { id, user, tags }: { id: string; user: string; tags: readonly string[] },
): Promise<void> {
  if (tags.length === 0) return;
  await client.query(ADD_TAGS([user, tags]));
  await client.query(TAG([id, user, tags]));
}

if (import.meta.main) {
  const { DATABASE_URL: databaseUrl, PORT: port = "4002" } = process.env;
  if (databaseUrl === undefined) throw new Error("DATABASE_URL is not set");
  closeOnSignal(await startNewApp({ databaseUrl, port: Number(port) }));
}
