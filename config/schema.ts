import { backupFields } from "./backup.ts";
import { z } from "zod";
import {
  count,
  delta,
  duration,
  factor,
  flag,
  identifier,
  jsonPath,
  listen,
  phaseName,
  routeMatch,
  section,
  share,
  size,
  sql,
  sqlValue,
  text,
} from "./fields.ts";
import { drillField, policyFields } from "./policy.ts";
import { serverFields } from "./server-limits.ts";
import { CONSISTENCIES, DEFERRABLE, ROUTE_KINDS, TOKEN_CARRIERS } from "./words.ts";

/**
 * The plan file (DESIGN.md §4). Checks here are about one field each; load.ts adds those that need several.
 * Every field is described: editors show it, and docs/crossfade.schema.json is made of it.
 */

const file = () => text("the path of a file, relative to the plan's folder");

const appTls = section({
  ca: file()
    .optional()
    .describe("Authorities whose certificates the app may have. Default: those Node knows."),
  cert: file().optional().describe("Certificate (and chain) that the sidecar shows the app."),
  key: file().optional().describe("Its private key, without a passphrase."),
  server_name: text("a host name", (value) => /^[\w.-]+$/.test(value))
    .optional()
    .describe("Name that the app's certificate is for, where it is not the host of its URL."),
});

const side = (which: "old" | "new") =>
  section({
    database: z
      .string()
      .describe(
        `URL of the ${which} side's Postgres: postgres://user:password@host:port/database.`,
      ),
    schema: identifier("schema")
      .prefault("public")
      .describe(`Schema of the ${which} side's tables.`),
    app: z
      .string()
      .describe(
        `Base URL of the ${which} app, such as http://127.0.0.1:4001 or https://app.internal.`,
      ),
    tls: appTls
      .optional()
      .describe(`How the ${which} app is reached where its URL is https://. PEM files.`),
  });

const from = z.union(
  [
    identifier("table"),
    section({
      table: identifier("table").describe("The driving table, at the side it is read from."),
      query: sql()
        .optional()
        .describe(
          "Joins, run at the side it is read from: a select that returns the driving table's key columns, one row per key.",
        ),
      key: z
        .array(identifier("column"))
        .min(1, { error: "found an empty list, expected at least one column" })
        .optional()
        .describe(
          "Columns that tell its rows apart, for a table without a primary key or unique index: not null, and no two rows alike. An index over them keeps the copy quick.",
        ),
      also: z
        .record(
          identifier("table"),
          sql().describe(
            "SQL over the changed row that gives the driving keys: an expression or a select.",
          ),
        )
        .optional()
        .describe(
          "Other tables the query or an expression reads: a change there re-makes the driving keys named by the SQL.",
        ),
    }),
  ],
  { error: "a table's name, or a map of table, query, key and also" },
);

const own = z.union(
  [
    z.literal("none"),
    z
      .record(identifier("column"), sqlValue().describe("SQL over the source key."))
      .refine((map) => Object.keys(map).length > 0, {
        error: "found an empty map, expected at least one column, or none",
      }),
  ],
  { error: "none, or a map of target columns to SQL over the source key" },
);

const mapping = section({
  from: from.describe("The table the rows come from; same-named columns are carried over."),
  where: sqlValue()
    .optional()
    .describe("SQL condition over the source row: only rows for which it is true are mapped."),
  own: own
    .optional()
    .describe(
      "Which target rows belong to one source row: target column to SQL over the source key. `none`: shared by many, never removed.",
    ),
  set: z
    .record(identifier("column"), sqlValue().describe("SQL over the source row."))
    .prefault({})
    .describe(
      "Target column to SQL over the source row, for columns that are not carried over as they are.",
    ),
  reject: z
    .record(text("a reason"), sqlValue().describe("SQL condition over the source row."))
    .prefault({})
    .describe(
      "Reason to SQL condition: rows for which it is true go to quarantine with that reason.",
    ),
  transform: file()
    .optional()
    .describe(
      "Instead of set, where and reject: a TypeScript or JavaScript module that makes the rows, relative to the plan's folder (docs/transforms.md).",
    ),
});

const mappings = z
  .union(
    [
      mapping,
      z.array(mapping).min(1, { error: "found an empty list, expected at least one mapping" }),
    ],
    {
      error: "a mapping (a map with at least `from`), or a list of mappings",
    },
  )
  .describe("How rows of this table are made from the other side: one mapping, or a list.");

const mappingSet = z.union(
  [
    z.literal("identity"),
    z.record(identifier("table"), mappings).refine((map) => Object.keys(map).length > 0, {
      error: "found an empty map, expected at least one table, or identity",
    }),
  ],
  { error: "identity, or a map of tables to mappings" },
);

const clientSource = text(
  '"header:NAME", "cookie:NAME" or "ip"',
  (value) => value === "ip" || /^(header|cookie):[\w!#$%&'*+.^`|~-]+$/.test(value),
);

const route = section({
  match: routeMatch().describe(
    'Method and path: "POST /search", or "* /admin/*" for every method.',
  ),
  kind: z
    .enum(ROUTE_KINDS)
    .optional()
    .describe("What the route does. Default: by its method; needed where the method is *."),
  side: z
    .enum(["old", "new", "authority"])
    .optional()
    .describe("Always answered by this side, or by the one that takes writes."),
});

const clientTls = section({
  cert: file().describe("Certificate of the service, with its chain."),
  key: file().describe("Its private key, without a passphrase."),
  ca: file()
    .optional()
    .describe(
      "Authorities of clients: where it is set, a client without a certificate of theirs is refused.",
    ),
});

const limits = section({
  header_bytes: count(1_024, 16_777_216)
    .prefault(65_536)
    .describe("The largest head of a request, in bytes: beyond it 431."),
  header_timeout: duration({ max: "1d" })
    .prefault("60s")
    .describe("How long a client may take to send the head of a request."),
  body_timeout: duration({ max: "1d" })
    .prefault("60s")
    .describe("How long a client may pause within the content of a request; then it is cut off."),
  idle_timeout: duration({ max: "1d" })
    .prefault("72s")
    .describe(
      "How long a connection stays open between two requests. Longer than the load balancer in front keeps its own.",
    ),
  connections: count(1, 1_000_000)
    .prefault(50_000)
    .describe("How many clients may be connected to one sidecar at once; more are turned away."),
  connect_timeout: duration({ max: "1h" })
    .prefault("5s")
    .describe("How long connecting to an app may take."),
  answer_timeout: duration({ max: "1d" })
    .prefault("300s")
    .describe("How long an app may take to begin its answer; then 504."),
});

const proxy = section({
  listen: listen()
    .prefault("127.0.0.1:8080")
    .describe("Where the sidecar listens for the service's traffic."),
  tls: clientTls
    .optional()
    .describe(
      "HTTPS towards clients, with HTTP/2 for those that ask for it. PEM files, read again when they change. Left out: plain HTTP.",
    ),
  client: section({
    by: z
      .array(clientSource)
      .min(1, { error: "found an empty list, expected at least one source" })
      .prefault(["header:authorization", "cookie:sid", "ip"])
      .describe(
        "Where a client's identity is taken from, the first that is there first: header:NAME, cookie:NAME, ip.",
      ),
  })
    .prefault({})
    .describe("Who a client is, for stickiness and for reading one's own writes."),
  consistency: z
    .enum(CONSISTENCIES)
    .prefault("causal")
    .describe(
      "causal: everybody reads their own writes. strict: a write answers when it is in both schemas. eventual: neither.",
    ),
  tokens: z
    .enum(TOKEN_CARRIERS)
    .optional()
    .describe(
      "How several sidecars know what a client has seen (consistency: causal). redis: they tell each other through the plan's redis. cookie: a signed cookie that each client carries. none: reads of several sidecars stay with the authority. Default: redis where redis is set, else none.",
    ),
  routes: z
    .array(route)
    .prefault([])
    .describe(
      "Routes that are not what their method says. Default: GET, HEAD and OPTIONS read, the rest write.",
    ),
  headers: flag()
    .prefault(true)
    .describe("Whether responses carry crossfade-side and crossfade-mirrored."),
  limits: limits.prefault({}).describe("What one client may take of a sidecar."),
  processes: count(1, 64)
    .prefault(1)
    .describe(
      "How many processes share the address, one for each core that the sidecar may use. They are sidecars of their own: tokens says how their clients keep reading their own writes. More than one: Linux or FreeBSD, and a listen with a port.",
    ),
  state: z
    .string()
    .min(1)
    .prefault(".crossfade")
    .describe(
      "Folder, seen from the plan's, where a sidecar remembers the last routing state for a restart without the control store.",
    ),
}).superRefine(({ listen: { port }, processes }, ctx) => {
  if (port !== 0 || processes === 1) return;
  ctx.addIssue({
    code: "custom",
    path: ["listen"],
    message: `found port 0, expected a port that ${processes} processes can share`,
  });
});

const backfill = section({
  workers: count(1, 64)
    .prefault(2)
    .describe("How many chunks are copied, or compared, at the same time."),
  chunk: count(1, 1_000_000).prefault(5_000).describe("Rows per chunk."),
  target: duration({ min: "10ms", max: "1m" })
    .prefault("500ms")
    .describe(
      "How long one sync of the copy should take: neighbouring chunks are taken together up to it. The mirror waits that long for a key among them.",
    ),
  defer: z
    .array(z.enum(DEFERRABLE, { error: "indexes or foreign_keys" }))
    .prefault([])
    .describe(
      "What of the new tables is dropped while rows are copied and built again before verify: indexes (not unique ones, nor those a sync looks rows up by), foreign_keys. Faster for large tables; `check` says which. Needs to own them.",
    ),
  disk_free: size()
    .optional()
    .describe(
      "Room for the copy on the new database's disk, such as 100GB: the way into backfill is refused when the new tables and indexes are estimated to be larger. WAL comes on top. Left out: not asked for.",
    ),
  throttle: section({
    p99: factor()
      .optional()
      .describe("Slow down above this factor over the app's usual p99, such as 1.2x."),
    replica_lag: duration()
      .optional()
      .describe("Slow down above this replication lag of the databases' replicas, such as 5s."),
    active: count(1, 100_000)
      .optional()
      .describe("Slow down above this number of active sessions on the source."),
    wal: size()
      .optional()
      .describe("Slow down above this much WAL per second on the target, such as 50MB."),
  })
    .prefault({})
    .describe("When copying slows down for the sake of the app."),
});

const verify = section({
  examples: count(0, 1_000)
    .prefault(10)
    .describe("How many rows of a chunk that differ are recorded as examples, with their columns."),
  redact: z
    .array(text("a column, table.column, or *", (value) => /^[^\s]+$/.test(value)))
    .prefault([])
    .describe("Columns whose values no example shows: email, users.email, or * for all."),
  continuous: flag()
    .prefault(true)
    .describe(
      "Whether everything is compared again and again, gently, after the first clean comparison.",
    ),
})
  .prefault({})
  .describe("How rows are compared.");

const checks = z
  .record(
    text("a name"),
    section({
      on: z
        .enum(["old", "new", "both"], { error: "old, new or both" })
        .describe(
          "old, new: the SQL must return no rows on that side. both: it must return the same rows on both.",
        ),
      sql: sql().describe("A select, run read-only with the side's schema as search path."),
    }),
  )
  .prefault({})
  .describe("Your own checks, a part of every comparison of all tables.");

const shadow = section({
  sample: share()
    .prefault("0%")
    .describe(
      "Share of reads also asked of the new app, such as 10%. 0%, the default: none, and the gate asks for none.",
    ),
  ignore: z
    .array(jsonPath())
    .prefault([])
    .describe("JSON paths of answers that are not compared, such as $.generated_at."),
  unordered: z
    .array(jsonPath())
    .prefault([])
    .describe("JSON paths of lists whose order says nothing, such as $.tags."),
  redact: z
    .array(jsonPath())
    .prefault([])
    .describe("JSON paths whose values are never stored or shown, such as $..email."),
});

const canary = section({
  steps: z
    .array(share())
    .min(1, { error: "found an empty list, expected at least one share" })
    .refine((steps) => steps.every((step, i) => step > (steps[i - 1] ?? 0)), {
      error: "found steps out of order, expected growing shares above 0%",
    })
    .prefault(["1%", "5%", "25%", "50%"])
    .describe("Shares of clients whose reads the new app answers, step by step."),
  stay: duration().prefault("5m").describe("Shortest stay in a step."),
  fallback: flag()
    .prefault(true)
    .describe("Whether a read that fails on the new side is answered by the old."),
  fallback_after: duration({ max: "1h" })
    .prefault("5s")
    .describe("How long the new app may take to begin an answer that the old can give instead."),
});

const gates = section({
  verify: section({
    max_age: duration().prefault("15m").describe("How old a clean verify may be."),
  })
    .prefault({})
    .describe("Every row was compared and none differs."),
  lag: duration()
    .prefault("1s")
    .describe("Largest lag of the mirror; beyond it reads leave the new side."),
  shadow: section({
    samples: count(1, 1e9).prefault(1_000).describe("Compared reads there must be at least."),
    mismatch: share().prefault("0.1%").describe("Largest share of reads answered differently."),
  })
    .prefault({})
    .describe("Shadow reads agree."),
  canary: section({
    samples: count(0, 1e9)
      .prefault(500)
      .describe("Reads per step that new must have answered at least. 0: no step is judged."),
    errors: delta()
      .prefault("+0.1%")
      .describe("How much larger the new app's share of errors may be."),
    p99: factor()
      .prefault("1.1x")
      .describe("Factor over the old app's p99 that the new app's may reach."),
  })
    .prefault({})
    .describe("The new app answers as well as the old."),
  drill: drillField,
  ...serverFields,
});

export const planSchema = section({
  name: text("a name of letters, digits, - _ and ., at most 40", (value) =>
    /^[a-z0-9][\w.-]{0,39}$/i.test(value),
  ).describe(
    "Name of the migration: letters, digits, - _ and . ; it stands in logs, metrics and lock names.",
  ),
  old: side("old").describe("The side the service lives on today: its database, schema and app."),
  new: side("new").describe("The side the service is to live on: its database, schema and app."),
  control: section({
    database: z
      .string()
      .optional()
      .describe(
        "URL of the Postgres that holds Crossfade's own tables. Default: the old database.",
      ),
    schema: identifier("schema")
      .prefault("crossfade")
      .describe("Schema of Crossfade's own tables."),
  })
    .prefault({})
    .describe("Where Crossfade keeps phase, history and progress."),
  redis: z
    .string()
    .optional()
    .describe("URL of a Redis, optional: redis://host:6379. Empty: none is used."),
  feed: z
    .enum(["trigger", "wal"])
    .prefault("trigger")
    .describe(
      "How changes are found: triggers that log keys, or logical decoding (wal: needs wal_level = logical).",
    ),
  wal: section({
    retain: size()
      .prefault("10GB")
      .describe(
        "Most WAL a server may keep for Crossfade, such as 10GB: beyond it the mirror pauses and the slot is dropped.",
      ),
  })
    .prefault({})
    .describe("Limits of feed: wal."),
  forward: mappingSet.describe(
    "Tables of the new schema: how old rows make them. `identity`: every table, same names and columns.",
  ),
  reverse: mappingSet
    .optional()
    .describe(
      "Tables of the old schema: how new rows make them. Left out: no way back after write-new.",
    ),
  proxy: proxy.prefault({}).describe("The sidecar the service's traffic runs through."),
  backfill: backfill.prefault({}).describe("Copying the history."),
  verify,
  checks,
  shadow: shadow.prefault({}).describe("Reads also asked of the new app, to compare the answers."),
  canary: canary.prefault({}).describe("Moving reads to the new app in steps."),
  flip: section({
    hold: duration({ min: "10ms", max: "30s" })
      .prefault("500ms")
      .describe("Longest time a flip may keep writes waiting."),
    held: section({
      writes: count(1, 1_000_000)
        .prefault(10_000)
        .describe("How many writes may wait in one sidecar; more get 503 at once."),
      bytes: count(1_024, 4_294_967_296)
        .prefault(67_108_864)
        .describe(
          "How much memory what has been read of them may take, in bytes; more get 503 at once.",
        ),
      time: duration({ min: "10ms", max: "5m" })
        .optional()
        .describe(
          "How long one write may wait; then it gets 503. Default: four times hold, at least 2s. Only a flip that is late after its decision gets there.",
        ),
    })
      .prefault({})
      .describe("What one sidecar keeps of the writes that wait."),
  })
    .prefault({})
    .describe("Moving the authority for writes."),
  maintenance: section({
    message: text(
      "a text of at most 500 characters",
      (value) => value.trim() !== "" && value.length <= 500,
    )
      .prefault("This service is under maintenance: it can be read, but takes no writes.")
      .describe("What a write is told."),
    retry_after: duration({ min: "1s", max: "1d" })
      .prefault("1m")
      .describe("When it may try again, as `retry-after` says."),
  })
    .prefault({})
    .describe("How writes are answered while `crossfade maintenance on` holds: 503."),
  gates: gates.prefault({}).describe("What must hold before the next phase."),
  approvals: z
    .record(phaseName(), count(1, 100).describe("Number of distinct people."))
    .prefault({})
    .describe("How many distinct people must approve a phase."),
  ...policyFields,
  backup: backupFields
    .optional()
    .describe("Backups of both databases: where, how many, and before which phases."),
  operate: section({
    listen: listen()
      .prefault("127.0.0.1:8081")
      .describe("Where the operator port listens: API, metrics, console."),
    tokens: z
      .string()
      .optional()
      .describe("Bearer tokens of the operator port. A secret: name an environment variable."),
  })
    .prefault({})
    .describe("The operator port."),
  trace: section({
    otlp: text(
      "an http:// or https:// URL, or nothing",
      (value) => value === "" || /^https?:\/\/\S+$/.test(value),
    )
      .prefault("")
      .describe(
        "Collector of OpenTelemetry spans, OTLP over HTTP: http://collector:4318. Empty: none. Its headers: OTEL_EXPORTER_OTLP_HEADERS.",
      ),
    sample: share()
      .prefault("100%")
      .describe(
        "Share of traces that begin here and are recorded; others follow whoever began them.",
      ),
  })
    .prefault({})
    .describe("Traces: request, app, fence, mirror."),
  notify: z
    .array(text("an http:// or https:// URL", (value) => /^https?:\/\/\S+$/.test(value)))
    .prefault([])
    .describe("Webhooks told of phase changes."),
}).describe("A Crossfade plan: how a live service crosses from its old schema to its new one.");

export type PlanFile = z.output<typeof planSchema>;
export type MappingFile = z.output<typeof mapping>;
export type MappingSetFile = z.output<typeof mappingSet>;
