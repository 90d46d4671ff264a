import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";

const ROOT = resolve(import.meta.dirname, "../..");
/** What each product folder may import besides itself: what stands to its right in DESIGN.md §7. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  config: [],
  store: ["config"],
  proxy: ["store", "config"],
  backfill: ["store", "config"],
  switchover: ["backfill", "proxy", "store", "config"],
  cli: ["switchover", "backfill", "proxy", "store", "config"],
};

/** Module specifiers of static imports and re-exports, type-only ones included, and of `import("…")`. */
function specifiers(source: string): string[] {
  const code = source.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  const pattern =
    /(?:^|[;}\s])(?:import|export)\s+(?:[\w*{}\s,$]+?\s+from\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/g;
  return [...code.matchAll(pattern)].map((match) => match[1] ?? match[2] ?? "");
}

function folderOf(path: string): string {
  return relative(ROOT, path).split("/")[0] ?? "";
}

function wrongImports(file: string): string[] {
  const from = folderOf(join(ROOT, file));
  return specifiers(readFileSync(join(ROOT, file), "utf8"))
    .filter((specifier) => specifier.startsWith("."))
    .filter((specifier) => {
      const to = folderOf(resolve(ROOT, dirname(file), specifier));
      return to !== from && !(MAY_IMPORT[from] ?? []).includes(to);
    })
    .map((specifier) => `${file} imports ${specifier}`);
}

test("specifiers are found in every form", () => {
  const source = `
    import a from "./a.ts";
    import type { B } from '../b.ts';
    import {
      c,
      type D,
    } from "./c.ts";
    import * as e from "./e.ts"; import "./f.ts";
    export { g } from "./g.ts";
    export * from "./h.ts";
    // import i from "./i.ts";
    const j = await import("./j.ts");
  `;
  expect(specifiers(source)).toEqual([
    "./a.ts",
    "../b.ts",
    "./c.ts",
    "./e.ts",
    "./f.ts",
    "./g.ts",
    "./h.ts",
    "./j.ts",
  ]);
});

test("imports point one way: cli → switchover → backfill, proxy → store → config", () => {
  const folders = Object.keys(MAY_IMPORT);
  const files = folders.flatMap((folder) => globSync(`${folder}/**/*.ts`, { cwd: ROOT }));
  expect(files.length).toBeGreaterThan(0);
  expect(files.flatMap(wrongImports)).toEqual([]);
});

/** The plan's loader, what children are told, and the places where a test may interrupt a process. */
const READS_ENVIRONMENT = ["config/load.ts", "config/environment.ts", "switchover/failpoint.ts"];

test("only the plan's loader reads the environment", () => {
  const files = Object.keys(MAY_IMPORT).flatMap((folder) =>
    globSync(`${folder}/**/*.ts`, { cwd: ROOT }),
  );
  const readers = files.filter((file) =>
    /\bprocess\.env\b/.test(readFileSync(join(ROOT, file), "utf8")),
  );
  expect(readers.filter((file) => !READS_ENVIRONMENT.includes(file))).toEqual([]);
});
