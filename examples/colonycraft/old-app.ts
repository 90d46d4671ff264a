import type pg from "pg";
import {
  closeOnSignal,
  type Content,
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

/** Starts the old app: tags live in `metadata` as `category` and `more_tags`. */
export async function startOldApp(
  options: AppDatabaseOptions & { readonly port?: number },
): Promise<RunningApp> {
  return listen(createApi(createOldStore(openPool(options))), options.port ?? 0);
}

const LIST = prepared(
  `select ${COLUMNS} from conversations c where user_id = $1 order by updated_at desc, id desc limit $2`,
);
const READ = prepared(`select ${COLUMNS} from conversations c where id = $1`);
const LOCK = prepared(`select ${COLUMNS} from conversations c where id = $1 for update`);
const CREATE = prepared(
  `insert into conversations as c (id, user_id, title, metadata, created_at, updated_at)
   values ($1, $2, $3, $4, now(), now()) returning ${COLUMNS}`,
);
const UPDATE = prepared(
  `update conversations c set title = $2, metadata = $3, updated_at = now() where id = $1 returning ${COLUMNS}`,
);
const REMOVE = prepared("delete from conversations where id = $1");

export function createOldStore(pool: pg.Pool): ConversationStore {
  return {
    async ping() {
      await pool.query("select 1");
    },
    async list(user, limit) {
      const { rows } = await pool.query<ConversationRow>(LIST([user, limit]));
      return rows.map(toConversation);
    },
    async get(id) {
      const { rows } = await pool.query<ConversationRow>(READ([id]));
      return rows[0] === undefined ? undefined : toConversation(rows[0]);
    },
    async create({ id, user, ...content }) {
      const { rows } = await pool.query<ConversationRow>(
        CREATE([id, user, content.title, toMetadata(content)]),
      );
      return toConversation(rows[0]!);
    },
    update: (id, change) =>
      inTransaction(pool, async (client) => {
        const { rows: found } = await client.query<ConversationRow>(LOCK([id]));
        if (found[0] === undefined) return undefined;
        const content = change(toConversation(found[0]));
        const { rows } = await client.query<ConversationRow>(
          UPDATE([id, content.title, toMetadata(content)]),
        );
        return toConversation(rows[0]!);
      }),
    async remove(id) {
      const { rowCount } = await pool.query(REMOVE([id]));
      return rowCount === 1;
    },
    close: () => pool.end(),
  };
}

function toConversation({
  id,
  user,
  title,
  metadata: stored,
  created_at,
  updated_at,
}: ConversationRow): Conversation {
  const {
    category = null,
    more_tags = [],
    ...metadata
  } = stored as { category?: string | null; more_tags?: string[] };
  const tags = category === null ? [] : [category, ...more_tags];
  return { id, user, title, category, tags, metadata, created_at, updated_at };
}

/** The normal form: no tags, no keys; one tag, only `category`. */
function toMetadata({ metadata, tags: [category, ...more] }: Content): Record<string, unknown> {
  if (category === undefined) return { ...metadata };
  return { ...metadata, category, ...(more.length === 0 ? {} : { more_tags: more }) };
}

if (import.meta.main) {
  const { DATABASE_URL: databaseUrl, PORT: port = "4001" } = process.env;
  if (databaseUrl === undefined) throw new Error("DATABASE_URL is not set");
  closeOnSignal(await startOldApp({ databaseUrl, port: Number(port) }));
}
