import { spawnSync } from "node:child_process";
import { cpSync, globSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";

/**
 * Makes dist/, which the npm package ships: Node does not strip types under node_modules. Whatever the product folders
 * hold besides TypeScript (SQL, pages of the console) is copied to the same place.
 */
const ROOT = resolve(import.meta.dirname, "..");
const DIST = join(ROOT, "dist");
const FOLDERS = ["config", "proxy", "store", "backfill", "switchover", "cli"];

rmSync(DIST, { recursive: true, force: true });
const tsc = spawnSync(
  process.execPath,
  [join(ROOT, "node_modules/typescript/bin/tsc"), "-p", join(ROOT, "tsconfig.build.json")],
  {
    stdio: "inherit",
  },
);
if (tsc.status !== 0) process.exit(tsc.status ?? 1);

const console = spawnSync(
  process.execPath,
  [join(ROOT, "scripts/build-console.ts"), join(DIST, "console")],
  { stdio: "inherit" },
);
if (console.status !== 0) process.exit(console.status ?? 1);

for (const folder of FOLDERS) {
  const files = globSync(`${folder}/**/*.*`, {
    cwd: ROOT,
    exclude: (name) => /\.(ts|md)$|(^|\/)console$/.test(name),
  });
  for (const file of files) cpSync(join(ROOT, file), join(DIST, file));
}

// Types only, so it is its own declaration: what `import type … from "crossfade"` finds.
cpSync(join(ROOT, "config/transform-types.ts"), join(DIST, "transform-types.d.ts"));
