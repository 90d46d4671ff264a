import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { globSync, readFileSync } from "node:fs";
import { access, readFile, readdir } from "node:fs/promises";
import { extname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { CrossfadeError, messageOf } from "../config/errors.ts";

/** The console as it is served: the files that Vite made, in memory. */

export interface ConsoleFile {
  readonly type: string;
  readonly body: Buffer;
  readonly gzipped: Buffer;
}

/** `/` is the page; everything else lies under `/console/`, named by its content. */
export type ConsoleFiles = ReadonlyMap<string, ConsoleFile>;

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** In the package this file is dist/switchover/console-files.js, beside dist/console. */
const PACKAGED = resolve(import.meta.dirname, "../console");
const CHECKOUT = resolve(import.meta.dirname, "..");
const SOURCES = join(CHECKOUT, "switchover/console");

let loaded: Promise<ConsoleFiles> | undefined;

/**
 * The files, read once per process. A checkout has no built console: the first one who asks builds it (a second or two),
 * and it is kept until a source of it changes. Throws FAILED with what to do.
 */
export function consoleFiles(): Promise<ConsoleFiles> {
  loaded ??= load().catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function load(): Promise<ConsoleFiles> {
  return readFiles((await isFile(join(PACKAGED, "index.html"))) ? PACKAGED : await builtCheckout());
}

/** Named by its sources, so that processes which build at the same time, and other branches, do not disturb each other. */
async function builtCheckout(): Promise<string> {
  const folder = join(CHECKOUT, "node_modules/.cache/crossfade-console", sourcesDigest());
  if (await isFile(join(folder, "index.html"))) return folder;
  try {
    await promisify(execFile)(process.execPath, [
      join(CHECKOUT, "scripts/build-console.ts"),
      folder,
    ]);
  } catch (error) {
    throw new CrossfadeError("FAILED", `the console could not be built: ${messageOf(error)}`, {
      hint: "`npm ci` installs what building it needs; `npm run build` shows every message.",
      cause: error,
    });
  }
  return folder;
}

function sourcesDigest(): string {
  const hash = createHash("sha256");
  for (const file of globSync("**/*.*", { cwd: SOURCES }).toSorted())
    hash.update(`${file}\n`).update(readFileSync(join(SOURCES, file)));
  return hash.digest("hex").slice(0, 16);
}

async function readFiles(folder: string): Promise<ConsoleFiles> {
  const files = new Map<string, ConsoleFile>();
  for (const entry of await readdir(folder, { recursive: true })) {
    const type = TYPES[extname(entry)];
    if (type === undefined) continue;
    const body = await readFile(join(folder, entry));
    const url = entry === "index.html" ? "/" : `/${entry.replaceAll("\\", "/")}`;
    files.set(url, { type, body, gzipped: gzipSync(body, { level: 9 }) });
  }
  return files;
}

async function isFile(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
