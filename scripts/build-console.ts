import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { build } from "vite";

/**
 * Builds the console into the folder given: `node scripts/build-console.ts FOLDER`. The folder appears whole or not at all;
 * where another process was faster, its work is kept.
 */
const ROOT = resolve(import.meta.dirname, "..");
const folder = resolve(process.argv[2] ?? "dist/console");
const unfinished = `${folder}.${process.pid}`;

mkdirSync(dirname(folder), { recursive: true });
await build({
  configFile: false,
  root: resolve(ROOT, "switchover/console"),
  // Relative to the page, so that a reverse proxy may serve it under a path of its own.
  base: "./",
  logLevel: "warn",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: unfinished,
    emptyOutDir: true,
    assetsDir: "console",
    // The policy forbids data: URLs, and module preloading would add an inline polyfill.
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
  },
});
try {
  renameSync(unfinished, folder);
} catch (error) {
  rmSync(unfinished, { recursive: true, force: true });
  if (!existsSync(resolve(folder, "index.html"))) throw error;
}
