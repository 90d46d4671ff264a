import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { rmSync } from "node:fs";
import { stringify } from "yaml";

/** Writes `content` (text, or data as YAML) as a plan file in a folder of its own, removed after the test. */
export function writePlanFile(content: unknown): string {
  const folder = mkdtempSync(join(tmpdir(), "crossfade-plan-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return writePlanFileIn(folder, content);
}

/** The same, in a folder that somebody else removes. */
export function writePlanFileIn(folder: string, content: unknown): string {
  const file = join(folder, "crossfade.yaml");
  writeFileSync(file, typeof content === "string" ? content : stringify(content));
  return file;
}
