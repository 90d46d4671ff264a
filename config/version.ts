import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Of this Crossfade. The file runs as config/version.ts from a checkout and as dist/config/version.js from the package. */
export function packageVersion(): string {
  const path = ["..", "../.."]
    .map((up) => join(import.meta.dirname, up, "package.json"))
    .find((file) => existsSync(file));
  if (path === undefined) return "unknown";
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}
