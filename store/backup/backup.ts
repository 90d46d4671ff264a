import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { describeDatabase } from "../../config/describe.ts";
import { CrossfadeError } from "../../config/errors.ts";
import type { Plan } from "../../config/plan-types.ts";
import { type Side, SIDES } from "../../config/words.ts";
import { checkFiles, type Dump, type Manifest, openUnfinished, publish } from "./catalogue.ts";
import { decrypt, encrypt } from "./encryption.ts";
import { startTool, type ToolOptions } from "./tools.ts";

export interface BackupOptions {
  readonly why: string;
  readonly sides: readonly Side[];
  readonly signal: AbortSignal;
}

/**
 * Dumps the databases of the sides with pg_dump into a folder of its own, with checksums, encrypted where the plan has a
 * key. Whole or not at all: a backup that fails half-way leaves nothing.
 */
export async function createBackup(plan: Plan, options: BackupOptions): Promise<Manifest> {
  const { dir, key } = plan.backup;
  const at = new Date();
  const id = at.toISOString().replaceAll(/[:.]/g, "-");
  const folder = await openUnfinished(dir, id);
  try {
    const dumps: Dump[] = [];
    for (const side of distinctSides(plan, options.sides))
      dumps.push(await dump(plan, side, folder, options.signal));
    const manifest: Manifest = {
      id,
      plan: plan.name,
      at: at.toISOString(),
      why: options.why,
      encrypted: key !== undefined,
      dumps,
    };
    await publish(dir, folder, manifest);
    return manifest;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

/** Two sides in one database are one dump. */
function distinctSides(plan: Plan, sides: readonly Side[]): Side[] {
  return SIDES.filter(
    (side) =>
      sides.includes(side) &&
      !(side === "new" && sides.includes("old") && plan.old.database === plan.new.database),
  );
}

async function dump(plan: Plan, side: Side, folder: string, signal: AbortSignal): Promise<Dump> {
  const { key, tools } = plan.backup;
  const file = `${side}.dump${key === undefined ? "" : ".enc"}`;
  const started = performance.now();
  const tool = startTool("pg_dump", ["--format=custom"], plan[side].database, { tools, signal });
  tool.child.stdin?.end();
  const hash = createHash("sha256");
  const counted = new Transform({
    transform(chunk: Buffer, _, done) {
      hash.update(chunk);
      done(null, chunk);
    },
  });
  const path = join(folder, file);
  await Promise.all([
    tool.ended,
    pipeline(
      tool.child.stdout ?? new PassThrough(),
      key === undefined ? new PassThrough() : encrypt(key),
      counted,
      createWriteStream(path, { mode: 0o600, flush: true }),
    ),
  ]);
  return {
    side,
    database: describeDatabase(plan[side].database),
    file,
    bytes: (await stat(path)).size,
    sha256: hash.digest("hex"),
    seconds: (performance.now() - started) / 1_000,
  };
}

/** Reads a backup whole: checksums, decryption, and pg_restore's reading of every entry. Returns what is wrong. */
export async function verifyBackup(
  plan: Plan,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<string[]> {
  const problems = await checkFiles(plan.backup.dir, manifest);
  if (problems.length > 0) return problems;
  for (const entry of manifest.dumps)
    await feedRestore(plan, manifest, entry, ["--file=/dev/null"], undefined, signal).catch(
      (error: unknown) => {
        problems.push(`${entry.file}: ${error instanceof Error ? error.message : String(error)}`);
      },
    );
  return problems;
}

export interface RestoreOptions {
  readonly side: Side;
  readonly into: string;
  readonly signal: AbortSignal;
}

/**
 * Restores one side's dump in one transaction, replacing what is there under the same names: all of it or nothing.
 * The files are checked first.
 */
export async function restoreBackup(
  plan: Plan,
  manifest: Manifest,
  options: RestoreOptions,
): Promise<Dump> {
  const entry =
    manifest.dumps.find(({ side }) => side === options.side) ??
    // Both sides in one database are one dump.
    (plan.old.database === plan.new.database ? manifest.dumps[0] : undefined);
  if (entry === undefined)
    throw new CrossfadeError("USAGE", `backup ${manifest.id} holds no dump of ${options.side}`, {
      hint: `It holds: ${manifest.dumps.map(({ side }) => side).join(", ")}.`,
    });
  const problems = await checkFiles(plan.backup.dir, manifest);
  if (problems.length > 0)
    throw new CrossfadeError("FAILED", `backup ${manifest.id}: ${problems.join("; ")}`, {
      hint: "Nothing was restored. Take another backup: crossfade backup list.",
    });
  await feedRestore(
    plan,
    manifest,
    entry,
    ["--clean", "--if-exists", "--single-transaction", "--exit-on-error"],
    options.into,
    options.signal,
  );
  return entry;
}

async function feedRestore(
  plan: Plan,
  manifest: Manifest,
  entry: Dump,
  args: readonly string[],
  into: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { dir, key, tools } = plan.backup;
  if (manifest.encrypted && key === undefined)
    throw new CrossfadeError(
      "USAGE",
      `backup ${manifest.id} is encrypted, but the plan has no backup.key`,
      {
        hint: "Set backup.key to the key it was made with.",
      },
    );
  const options: ToolOptions = { tools, signal };
  const tool = startTool("pg_restore", args, into, options);
  tool.child.stdout?.resume();
  const fed = pipeline(
    createReadStream(join(dir, manifest.id, entry.file)),
    manifest.encrypted && key !== undefined ? decrypt(key) : new PassThrough(),
    tool.child.stdin ?? new PassThrough(),
  );
  // pg_restore closes its input early where it fails: then its own words count. A dump that cannot be read must end it.
  const [restored, read] = await Promise.allSettled([
    tool.ended,
    fed.catch((error: unknown) => {
      if (!isClosedPipe(error)) tool.child.kill();
      throw error;
    }),
  ]);
  if (read.status === "rejected" && !isClosedPipe(read.reason)) throw read.reason;
  if (restored.status === "rejected") throw restored.reason;
}

function isClosedPipe(error: unknown): boolean {
  return (
    error instanceof Error &&
    "code" in error &&
    (error.code === "EPIPE" ||
      error.code === "ERR_STREAM_PREMATURE_CLOSE" ||
      error.code === "ECONNRESET")
  );
}
