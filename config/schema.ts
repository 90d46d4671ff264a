import { backupFields } from "./backup.ts";
import { z } from "zod";
import {
  count,
  delta,
  duration,
  factor,
  file,
  flag,
  identifier,
  jsonPath,
  listen,
  phaseName,
  section,
  share,
  size,
  sql,
  text,
} from "./fields.ts";
import { mappingSet } from "./mapping-schema.ts";
import { drillField, policyFields } from "./policy.ts";
import { proxy } from "./proxy-schema.ts";
import { serverFields } from "./server-limits.ts";
import { DEFERRABLE } from "./words.ts";

/**
 * The plan file (DESIGN.md §4). Checks here are about one field each; load.ts adds those that need several.
 * Every field is described: editors show it, and docs/crossfade.schema.json is made of it.
 */

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
