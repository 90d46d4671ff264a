import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { z } from "zod";
import { CrossfadeError, messageOf } from "../../config/errors.ts";
import { SIDES } from "../../config/words.ts";

/** One dumped database. */
const dumpSchema = z.object({
  side: z.enum(SIDES),
  /** `host:port/name`. */
  database: z.string(),
  file: z.string().regex(/^[\w.-]+$/),
  bytes: z.number(),
  sha256: z.string(),
  seconds: z.number(),
});

const manifestSchema = z.object({
  id: z.string().regex(/^[\w.-]+$/),
  plan: z.string(),
  at: z.string(),
  /** Why it was taken: a person's word, or the phase it was taken before. */
  why: z.string(),
  encrypted: z.boolean(),
  dumps: z.array(dumpSchema),
});

export type Dump = z.infer<typeof dumpSchema>;
export type Manifest = z.infer<typeof manifestSchema>;

const MANIFEST = "manifest.json";
/** A folder of this ending is a backup that is being made, or whose making died. */
const UNFINISHED = ".unfinished";

/** A folder for a backup that is being made: it counts only once `publish` has renamed it. */
export async function openUnfinished(dir: string, id: string): Promise<string> {
  const folder = join(dir, `${id}${UNFINISHED}`);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return folder;
}

/** Writes the manifest, then gives the folder its name: a backup is there whole or not at all. */
export async function publish(dir: string, folder: string, manifest: Manifest): Promise<void> {
  await writeFile(join(folder, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`, {
    mode: 0o600,
    flush: true,
  });
  await rename(folder, join(dir, manifest.id));
}

/** The finished backups of a folder, oldest first. A folder that cannot be read is an error, not an absence. */
export async function listBackups(dir: string): Promise<Manifest[]> {
  if (!existsSync(dir)) return [];
  const found: Manifest[] = [];
  for (const entry of await readdir(dir, { withFileTypes: true }))
    if (
      entry.isDirectory() &&
      !entry.name.endsWith(UNFINISHED) &&
      existsSync(join(dir, entry.name, MANIFEST))
    )
      found.push(await readManifest(join(dir, entry.name)));
  return found.toSorted((a, b) => a.at.localeCompare(b.at));
}

async function readManifest(folder: string): Promise<Manifest> {
  try {
    return manifestSchema.parse(JSON.parse(await readFile(join(folder, MANIFEST), "utf8")));
  } catch (error) {
    throw new CrossfadeError(
      "FAILED",
      `${join(folder, MANIFEST)} cannot be read: ${messageOf(error)}`,
      {
        hint: "Move this folder away; its dumps can still be read by pg_restore where they are not encrypted.",
        cause: error,
      },
    );
  }
}

/** The backup of that id, or the newest. */
export async function findBackup(dir: string, id: string | undefined): Promise<Manifest> {
  const all = await listBackups(dir);
  const found = id === undefined ? all.at(-1) : all.find((manifest) => manifest.id === id);
  if (found !== undefined) return found;
  throw new CrossfadeError(
    "USAGE",
    id === undefined ? `${dir}: found no backup` : `${dir}: found no backup ${id}`,
    { hint: "crossfade backup list shows what is there." },
  );
}

/** What is wrong with the files of a backup; empty: nothing. */
export async function checkFiles(dir: string, manifest: Manifest): Promise<string[]> {
  const problems: string[] = [];
  for (const dump of manifest.dumps) {
    const file = join(dir, manifest.id, dump.file);
    if (!existsSync(file)) {
      problems.push(`${dump.file}: the file is gone`);
      continue;
    }
    const { size } = await stat(file);
    if (size !== dump.bytes)
      problems.push(`${dump.file}: found ${size} bytes, expected ${dump.bytes}`);
    else if ((await sha256(file)) !== dump.sha256)
      problems.push(`${dump.file}: its checksum is another than when it was written`);
  }
  return problems;
}

async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex");
}

export interface Retention {
  /** So many of the newest stay. */
  readonly keep: number;
  /** Older ones than this go, ms; undefined: age does not matter. */
  readonly maxAgeMs: number | undefined;
}

/** The backups beyond the retention. The newest always stays. */
export function expired(
  all: readonly Manifest[],
  { keep, maxAgeMs }: Retention,
  now: Date,
): Manifest[] {
  const newestFirst = all.toReversed();
  return newestFirst.filter(
    ({ at }, i) =>
      i > 0 &&
      (i >= keep || (maxAgeMs !== undefined && now.getTime() - new Date(at).getTime() > maxAgeMs)),
  );
}

export async function removeBackup(dir: string, { id }: Manifest): Promise<void> {
  await rm(join(dir, id), { recursive: true });
}
