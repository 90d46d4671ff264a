import { dirname, resolve } from "node:path";
import { z } from "zod";
import { count, duration, section } from "./fields.ts";
import { PHASES } from "./words.ts";

/** Phases that can be gone back from only with a backup, or that first touch the databases. */
const DEFAULT_BEFORE = ["dual-write", "done"] as const;

export const backupFields = section({
  dir: z
    .string()
    .min(1)
    .prefault("backups")
    .describe("Folder of the backups, seen from the plan's folder."),
  before: z
    .array(z.enum(PHASES))
    .optional()
    .describe(
      "Phases before which a backup is taken; the phase is not entered if that fails. Default where backup is set: dual-write and done.",
    ),
  keep: count(1, 10_000)
    .prefault(7)
    .describe("How many of the newest stay when old ones are pruned."),
  max_age: duration({ min: "1h", max: "3650d" })
    .optional()
    .describe("Older ones than this are pruned; the newest always stays."),
  key: z
    .string()
    .optional()
    .describe(
      "Key that encrypts the dumps. A secret: name an environment variable. Empty: not encrypted.",
    ),
  tools: z
    .string()
    .optional()
    .describe("Folder of pg_dump and pg_restore. Default: found on PATH."),
});

/** Where backups are, how long they stay, and when they are taken without being asked for. */
export interface BackupPlan {
  /** Absolute. */
  readonly dir: string;
  readonly before: readonly string[];
  readonly keep: number;
  readonly maxAgeMs: number | undefined;
  /** A secret. */
  readonly key: string | undefined;
  readonly tools: string | undefined;
}

/** A plan without the section has a place for backups a person asks for, and takes none by itself. */
export function backupPlan(
  file: string,
  given: z.output<typeof backupFields> | undefined,
): BackupPlan {
  const fields = given ?? backupFields.parse({});
  return {
    dir: resolve(dirname(file), fields.dir),
    before: given === undefined ? [] : (given.before ?? DEFAULT_BEFORE),
    keep: fields.keep,
    maxAgeMs: fields.max_age,
    key: fields.key || undefined,
    tools: fields.tools || undefined,
  };
}
