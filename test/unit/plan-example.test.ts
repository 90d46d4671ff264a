import { expect, test } from "vitest";
import { loadPlan } from "../../config/load.ts";
import { writePlanFile } from "../support/plan-files.ts";

const ENV = {
  OLD_DATABASE_URL: "postgres://app:s3cret@db:5432/old",
  NEW_DATABASE_URL: "postgres://app:s3cret@db:5432/new",
};

/** The example of DESIGN.md §4, word for word. */
const EXAMPLE = `
name: colonycraft-tags
old:  { database: "\${OLD_DATABASE_URL}", schema: public, app: "http://127.0.0.1:4001" }
new:  { database: "\${NEW_DATABASE_URL}", schema: public, app: "http://127.0.0.1:4002" }
control: { database: "\${OLD_DATABASE_URL}", schema: crossfade }   # the default until done: the old database, if it is Postgres
redis: "\${REDIS_URL:-}"                                           # optional
feed: trigger                                                     # trigger | wal

forward:                                # a table of the new schema: how old rows make it
  users: { from: users }                # same-named columns are carried over
  conversations:
    from: conversations
    set: { metadata: "metadata - 'category'" }     # column: SQL over the old row
  tags:
    from: conversations
    where: metadata ? 'category'
    own: none                           # shared by many old rows: added, never removed
    set:
      id: md5(user_id || ':' || (metadata->>'category'))::uuid
      name: metadata->>'category'
  conversation_tags:
    from: conversations
    where: metadata ? 'category'
    own: { conversation_id: id }        # target column: SQL over the old KEY. These rows belong to that old row
    set: { conversation_id: id, tag_id: "md5(user_id || ':' || (metadata->>'category'))::uuid" }
    reject:
      category too long: length(metadata->>'category') > 50

reverse:                                # a table of the old schema: how new rows make it
  users: { from: users }
  conversations:
    from:
      table: conversations              # the driving table
      query: |                          # optional: joins, at the side it is read from
        select c.*, (select min(t.name) from conversation_tags ct join tags t on t.id = ct.tag_id
                     where ct.conversation_id = c.id) as category from conversations c
      also:                             # a change there re-makes these driving keys
        conversation_tags: conversation_id
        tags: select conversation_id from conversation_tags where tag_id = tags.id
    set: { metadata: "metadata || case when category is null then '{}' else jsonb_build_object('category', category) end" }

proxy:
  listen: "127.0.0.1:8080"
  client: { by: [ "header:authorization", "cookie:sid", "ip" ] }   # who a client is: for stickiness and causality
  consistency: causal                   # causal | strict | eventual
  routes:                               # default: GET/HEAD/OPTIONS read, the rest write
    - { match: "POST /search", kind: read }
    - { match: "GET /logout", kind: write }
    - { match: "GET /events", kind: stream, side: authority }
backfill: { workers: 2, chunk: 5000, throttle: { p99: 1.2x, replica_lag: 5s, active: 50 } }
shadow:   { sample: 10%, ignore: [ "$.generated_at" ], redact: [ "$..email" ] }
canary:   { steps: [ 1%, 5%, 25%, 50% ], stay: 5m, fallback: true }
flip:     { hold: 500ms }
gates:
  verify: { max_age: 15m }
  lag: 1s
  shadow: { samples: 1000, mismatch: 0.1% }
  canary: { samples: 500, errors: +0.1%, p99: 1.1x }
approvals: { write-new: 1, done: 2 }
operate:  { listen: "127.0.0.1:8081", tokens: "\${CROSSFADE_TOKENS:-}" }
notify:   [ "https://hooks.example/…" ]
`;

test("the example of the design loads, normalised", () => {
  const plan = loadPlan(writePlanFile(EXAMPLE), ENV);
  expect(plan).toMatchObject({
    name: "colonycraft-tags",
    old: { database: ENV.OLD_DATABASE_URL, schema: "public", app: "http://127.0.0.1:4001" },
    control: { database: ENV.OLD_DATABASE_URL, schema: "crossfade" },
    redis: undefined,
    backfill: { workers: 2, chunk: 5_000, throttle: { p99: 1.2, replicaLagMs: 5_000, active: 50 } },
    shadow: {
      sample: 0.1,
      ignore: [[{ kind: "name", name: "generated_at" }]],
      unordered: [],
      redact: [[{ kind: "descend" }, { kind: "name", name: "email" }]],
    },
    canary: {
      steps: [0.01, 0.05, 0.25, 0.5],
      stayMs: 300_000,
      fallback: true,
      fallbackAfterMs: 5_000,
    },
    maintenance: {
      message: "This service is under maintenance: it can be read, but takes no writes.",
      retryAfterMs: 60_000,
    },
    flip: { holdMs: 500, held: { writes: 10_000, bytes: 67_108_864, ms: 2_000 } },
    gates: {
      verifyMaxAgeMs: 900_000,
      lagMs: 1_000,
      shadow: { samples: 1_000, mismatch: 0.001 },
      canary: { samples: 500, errors: 0.001, p99: 1.1 },
    },
    approvals: { "write-new": 1, done: 2 },
    operate: { listen: { host: "127.0.0.1", port: 8081 }, tokens: undefined },
  });
  expect(plan.proxy.client).toEqual([
    { by: "header", name: "authorization" },
    { by: "cookie", name: "sid" },
    { by: "ip" },
  ]);
  expect(plan.proxy.routes).toEqual([
    { method: "POST", path: "/search", kind: "read", side: undefined },
    { method: "GET", path: "/logout", kind: "write", side: undefined },
    { method: "GET", path: "/events", kind: "stream", side: "authority" },
  ]);
});

test("its mappings know where they stand", () => {
  const { forward, reverse } = loadPlan(writePlanFile(EXAMPLE), ENV);
  if (forward.kind !== "tables" || reverse?.kind !== "tables") throw new Error("expected tables");
  expect(forward.mappings.map((mapping) => mapping.path)).toEqual([
    "forward.users",
    "forward.conversations",
    "forward.tags",
    "forward.conversation_tags",
  ]);
  expect(forward.mappings[2]).toMatchObject({
    target: "tags",
    own: "none",
    where: "metadata ? 'category'",
  });
  expect(forward.mappings[3]?.own).toEqual(new Map([["conversation_id", "id"]]));
  expect(forward.mappings[3]?.reject).toEqual(
    new Map([["category too long", "length(metadata->>'category') > 50"]]),
  );
  expect(reverse.mappings[1]?.from.query).toContain("select c.*");
  expect([...(reverse.mappings[1]?.from.also.keys() ?? [])]).toEqual(["conversation_tags", "tags"]);
});

test("what does not act yet is said, a sentence each", () => {
  const { notActing } = loadPlan(writePlanFile(EXAMPLE), ENV);
  expect(notActing).toEqual([]);
});

test("the smallest plan gets every default, and says nothing of what it does not set", () => {
  const plan = loadPlan(
    writePlanFile({
      name: "small",
      old: { database: ENV.OLD_DATABASE_URL, app: "http://old.internal/base/" },
      new: { database: ENV.NEW_DATABASE_URL, app: "https://new.internal" },
      forward: "identity",
    }),
    {},
  );
  expect(plan.notActing).toEqual([]);
  expect(plan).toMatchObject({
    old: { schema: "public", app: "http://old.internal/base" },
    control: { database: ENV.OLD_DATABASE_URL, schema: "crossfade" },
    redis: undefined,
    feed: "trigger",
    wal: { retainBytes: 10e9 },
    forward: { kind: "identity" },
    reverse: undefined,
    proxy: {
      listen: { host: "127.0.0.1", port: 8080 },
      consistency: "causal",
      tokens: "none",
      routes: [],
      headers: true,
      limits: {
        headerBytes: 65_536,
        headerTimeoutMs: 60_000,
        bodyTimeoutMs: 60_000,
        idleTimeoutMs: 72_000,
        connections: 50_000,
      },
      appTimeouts: { connectMs: 5_000, headMs: 300_000 },
    },
    backfill: { workers: 2, chunk: 5_000 },
    maintenance: {
      message: "This service is under maintenance: it can be read, but takes no writes.",
      retryAfterMs: 60_000,
    },
    flip: { holdMs: 500, held: { writes: 10_000, bytes: 67_108_864, ms: 2_000 } },
    operate: { listen: { host: "127.0.0.1", port: 8081 } },
  });
  expect(plan.proxy.client).toHaveLength(3);
});

test("plain values become SQL literals; a list of mappings keeps its places", () => {
  const { forward } = loadPlan(
    writePlanFile({
      name: "small",
      old: { database: ENV.OLD_DATABASE_URL, app: "http://a" },
      new: { database: ENV.NEW_DATABASE_URL, app: "http://b" },
      forward: {
        address: [
          { from: "customers", set: { kind: "'customer'", rank: 1, active: true } },
          { from: "suppliers", set: { kind: "'supplier'", rank: -2.5, active: false } },
        ],
      },
    }),
    {},
  );
  if (forward.kind !== "tables") throw new Error("expected tables");
  expect(
    forward.mappings.map((mapping) => [mapping.path, Object.fromEntries(mapping.set)]),
  ).toEqual([
    ["forward.address[0]", { kind: "'customer'", rank: "1", active: "true" }],
    ["forward.address[1]", { kind: "'supplier'", rank: "-2.5", active: "false" }],
  ]);
});
