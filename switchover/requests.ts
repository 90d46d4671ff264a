import { z } from "zod";
import { CrossfadeError } from "../config/errors.ts";
import { PHASES } from "../config/words.ts";

/** Commands as they stand in the control store: kind and arguments, from the CLI, the API or another program. */

const phase = z.enum(PHASES);
const walk = z.strictObject({
  to: phase.optional(),
  /** Where the migration stood when this was decided: if it has gone on, the decision is stale and refused. */
  from: z
    .strictObject({
      phase,
      canary_step: z.int().nonnegative(),
      epoch: z.int().nonnegative(),
    })
    .optional(),
  wait: z.boolean().default(false),
  dryRun: z.boolean().default(false),
  noWayBack: z.boolean().default(false),
});
const ids = z.array(z.string().regex(/^\d+$/)).optional();
const what = z.enum(["backfill", "mirror", "all"]).default("all");

/** What `tune` may set, as the plan's `backfill` has it; times in ms, sizes in bytes, factors as numbers. */
export const TUNABLE = ["workers", "chunk", "p99", "replica_lag", "active", "wal"] as const;

export const REQUESTS = {
  advance: walk,
  rollback: walk.omit({ from: true, noWayBack: true }).extend({
    acceptRoundTrip: z.boolean().default(false),
    loseUnmirrored: z.boolean().default(false),
  }),
  drill: z.strictObject({ wait: z.boolean().default(false) }),
  verify: z.strictObject({
    tables: z.array(z.string().min(1)).min(1).optional(),
    repair: z.boolean().default(false),
    where: z.string().min(1).optional(),
    sample: z.number().gt(0).max(1).optional(),
  }),
  "quarantine-retry": z.strictObject({ ids }),
  "quarantine-accept": z.strictObject({
    id: z.string().regex(/^\d+$/),
    reason: z.string().min(1),
    as: z.string().min(1).optional(),
  }),
  approve: z.strictObject({ phase, as: z.string().min(1), reason: z.string().optional() }),
  pause: z.strictObject({ what }),
  resume: z.strictObject({ what }),
  tune: z.strictObject({
    key: z.enum(TUNABLE),
    value: z.number().positive().nullable(),
  }),
  maintenance: z.strictObject({ on: z.boolean(), message: z.string().min(1).max(500).optional() }),
  clean: z.strictObject({ dropOld: z.boolean().default(false) }),
} as const;

export type RequestKind = keyof typeof REQUESTS;
export type RequestArgs<Kind extends RequestKind> = z.output<(typeof REQUESTS)[Kind]>;

/** Short ones, which never wait: they are executed beside a long one. */
export const QUICK: readonly RequestKind[] = [
  "pause",
  "resume",
  "tune",
  "approve",
  "quarantine-accept",
  "maintenance",
];
/** One at a time. */
export const LONG: readonly RequestKind[] = [
  "advance",
  "rollback",
  "drill",
  "verify",
  "quarantine-retry",
  "clean",
];

export function isRequestKind(kind: string): kind is RequestKind {
  return Object.hasOwn(REQUESTS, kind);
}

/** The checked arguments of a command; throws USAGE. */
export function parseArgs<Kind extends RequestKind>(kind: Kind, args: unknown): RequestArgs<Kind> {
  const parsed = REQUESTS[kind].safeParse(args);
  if (parsed.success) return parsed.data as RequestArgs<Kind>;
  const problems = parsed.error.issues.map(
    (issue) => `${issue.path.join(".") || "arguments"}: ${issue.message}`,
  );
  throw new CrossfadeError("USAGE", `${kind}: ${problems.join("; ")}`);
}
