import Fastify, { type FastifyError, type FastifyInstance } from "fastify";

/** What a client may set on a conversation. */
export interface Content {
  readonly title: string;
  /** Distinct, in order; the first one is the category. */
  readonly tags: readonly string[];
  /** Free, but for the reserved keys. */
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** A conversation as every client sees it, whichever app answers: neither side's way of storing tags shows. */
export interface Conversation extends Content {
  readonly id: string;
  readonly user: string;
  readonly category: string | null;
  readonly created_at: string;
  readonly updated_at: string;
}

export interface Draft extends Content {
  readonly id: string;
  readonly user: string;
}

/** All that differs between the old and the new app: where the data is and in which shape. */
export interface ConversationStore {
  /** Rejects if the database does not answer. */
  ping(): Promise<void>;
  /** Newest change first. */
  list(user: string, limit: number): Promise<Conversation[]>;
  get(id: string): Promise<Conversation | undefined>;
  create(draft: Draft): Promise<Conversation>;
  /** Reads, changes and writes one conversation while nobody else can change it. */
  update(id: string, change: (current: Conversation) => Content): Promise<Conversation | undefined>;
  /** false: there was none. */
  remove(id: string): Promise<boolean>;
  close(): Promise<void>;
}

export interface RunningApp {
  readonly url: string;
  close(): Promise<void>;
}

/** Keys of the old schema's `metadata` that are not metadata. Refused in requests, so that both apps keep the normal form. */
export const RESERVED_KEYS = ["category", "more_tags"] as const;

interface Body {
  readonly id?: string;
  readonly user?: string;
  readonly title?: string;
  readonly category?: string | null;
  readonly tags?: readonly string[];
  readonly metadata?: Readonly<Record<string, unknown>>;
}

// Postgres stores neither NUL nor half a surrogate pair.
const STORABLE = "^[^\\u0000\\p{Cs}]*$";
const uuid = { type: "string", format: "uuid" };
const tag = { type: "string", minLength: 1, maxLength: 50, pattern: STORABLE };
const fields = {
  title: { type: "string", maxLength: 500, pattern: STORABLE },
  category: { ...tag, nullable: true },
  tags: { type: "array", items: tag, uniqueItems: true, maxItems: 20 },
  metadata: { type: "object", propertyNames: { not: { enum: RESERVED_KEYS } } },
};
const params = { type: "object", properties: { id: uuid } };
const body = (properties: object, required: readonly string[]) => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});

/** The HTTP API of both apps. Same requests, same answers, byte for byte. */
export function createApi(store: ConversationStore): FastifyInstance {
  const app = Fastify({ ajv: { customOptions: { coerceTypes: false, removeAdditional: false } } });
  app.setErrorHandler(async (error: FastifyError, _request, reply) => {
    const { status, message } = explain(error);
    // Refused by the guard, the whole transaction: a sidecar that hears this sends the write to the side that takes it.
    if (error.code === "CF001") reply.header("crossfade-applied", "no");
    return reply.code(status).send({ error: message });
  });
  app.setNotFoundHandler(async (_request, reply) =>
    reply.code(404).send({ error: "no such route" }),
  );
  app.addHook("onClose", () => store.close());
  addReads(app, store);
  addWrites(app, store);
  return app;
}

/** Listens on loopback. Port 0: any free one. */
export async function listen(app: FastifyInstance, port: number): Promise<RunningApp> {
  const url = await app.listen({ host: "127.0.0.1", port });
  return { url, close: () => app.close() };
}

/** The end of a process' main module: stops the app on the first signal. */
export function closeOnSignal(app: RunningApp): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => void app.close());
  }
}

function addReads(app: FastifyInstance, store: ConversationStore): void {
  app.get("/healthz", async () => {
    await store.ping();
    return { ok: true };
  });

  app.get<{ Querystring: { user: string; limit?: string } }>(
    "/conversations",
    {
      schema: {
        querystring: {
          type: "object",
          properties: { user: uuid, limit: { type: "string", pattern: "^([1-9][0-9]?|100)$" } },
          required: ["user"],
        },
      },
    },
    async ({ query }) => ({
      conversations: await store.list(query.user, Number(query.limit ?? 20)),
    }),
  );

  app.get<{ Params: { id: string } }>(
    "/conversations/:id",
    { schema: { params } },
    async ({ params: { id } }) => found(await store.get(id)),
  );
}

function addWrites(app: FastifyInstance, store: ConversationStore): void {
  type Write = { Params: { id: string }; Body: Body };

  app.post<{ Body: Body & { user: string; title: string } }>(
    "/conversations",
    { schema: { body: body({ id: uuid, user: uuid, ...fields }, ["user", "title"]) } },
    async (request, reply) => {
      const { id = crypto.randomUUID(), user } = request.body;
      return reply.code(201).send(await store.create({ id, user, ...contentOf(request.body) }));
    },
  );

  app.put<Write>(
    "/conversations/:id",
    { schema: { params, body: body(fields, ["title"]) } },
    async (request) => found(await store.update(request.params.id, () => contentOf(request.body))),
  );

  app.patch<Write>(
    "/conversations/:id",
    { schema: { params, body: body(fields, []) } },
    async (request) =>
      found(await store.update(request.params.id, (current) => contentOf(request.body, current))),
  );

  app.put<Write>(
    "/conversations/:id/category",
    { schema: { params, body: body({ category: fields.category }, ["category"]) } },
    async (request) =>
      found(await store.update(request.params.id, (current) => contentOf(request.body, current))),
  );

  app.delete<{ Params: { id: string } }>(
    "/conversations/:id",
    { schema: { params } },
    async (request, reply) => {
      if (!(await store.remove(request.params.id)))
        throw new HttpError(404, "no such conversation");
      return reply.code(204).send();
    },
  );
}

const EMPTY: Content = { title: "", tags: [], metadata: {} };

/** What a request makes of `current`: what it does not name stays. */
function contentOf(request: Body, current: Content = EMPTY): Content {
  const { title = current.title, metadata = current.metadata, category } = request;
  const tags =
    request.tags ?? (category === undefined ? current.tags : recategorise(current.tags, category));
  if (category !== undefined && category !== (tags[0] ?? null))
    throw new HttpError(400, "category must be the first of tags");
  return { title, tags, metadata };
}

/**
 * Puts `category` in the place of the first tag; the others stay, once each. null takes all tags away: a conversation
 * without a category has none.
 */
export function recategorise(tags: readonly string[], category: string | null): string[] {
  if (category === null) return [];
  return [category, ...tags.slice(1).filter((name) => name !== category)];
}

class HttpError extends Error {
  readonly statusCode: number;
  constructor(statusCode: number, message: string) {
    super(message);
    this.statusCode = statusCode;
  }
}

function found(conversation: Conversation | undefined): Conversation {
  if (conversation === undefined) throw new HttpError(404, "no such conversation");
  return conversation;
}

/** Answers never carry a database's own message: it differs between the two schemas. */
function explain(error: FastifyError): { status: number; message: string } {
  if (error.code === "23505") return { status: 409, message: "this id is taken" };
  if (error.code === "23503") return { status: 422, message: "no such user" };
  if (/^22[0-9A-Z]{3}$/.test(error.code ?? ""))
    return { status: 400, message: "a value cannot be stored" };
  const status = error.statusCode ?? 500;
  return {
    status,
    message:
      status < 500 ? error.message : `failed${error.code === undefined ? "" : ` (${error.code})`}`,
  };
}
