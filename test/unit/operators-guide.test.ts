import { globSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { PHASES } from "../../config/words.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const guide = readFileSync(join(ROOT, "docs/operators-guide.md"), "utf8");
/** Sections about phases: their titles are phases and arrows. */
const sections = guide
  .split(/^## /m)
  .filter((section) => PHASES.some((phase) => section.startsWith(phase)));

test("the guide says of every phase what happens, what to watch, how long, how to go back, what can go wrong", () => {
  const titles = sections.map((section) => section.split("\n")[0] ?? "").join("\n");
  expect(PHASES.filter((phase) => !titles.includes(phase))).toEqual([]);
  const labels = ["*What happens.*", "*Watch*", "*Takes*", "*Back:*", "*Can go wrong:*"];
  for (const section of sections)
    expect(
      labels.filter((label) => !section.includes(label)),
      section.split("\n")[0],
    ).toEqual([]);
});

test("what the guide quotes is what the screen says", () => {
  const files = globSync("{backfill,cli,proxy,store,switchover}/**/*.ts", { cwd: ROOT });
  const said = files
    .map((file) => readFileSync(join(ROOT, file), "utf8"))
    .join("\n")
    .replaceAll("\\`", "`");
  const quoted = sections.flatMap((section) =>
    [...section.matchAll(/"([^"]+)"/g)].map((match) => (match[1] ?? "").replaceAll(/\s+/g, " ")),
  );
  expect(quoted.length).toBeGreaterThan(8);
  expect(quoted.filter((sentence) => !said.includes(sentence))).toEqual([]);
});
