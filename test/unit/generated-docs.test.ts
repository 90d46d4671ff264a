import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { planJsonSchema } from "../../config/json-schema.ts";

const ROOT = resolve(import.meta.dirname, "../..");

test("the generated docs are current", async () => {
  const node = resolve(ROOT, "node_modules/.bin/node");
  await promisify(execFile)(node, [resolve(ROOT, "scripts/generate-docs.ts"), "--check"]);
});

test("every field of the plan is described", () => {
  const missing: string[] = [];
  const walk = (at: unknown, path: string) => {
    if (typeof at !== "object" || at === null) return;
    const { properties, additionalProperties, anyOf, items } = at as Record<string, unknown>;
    for (const [name, field] of Object.entries(properties ?? {})) {
      if (typeof (field as { description?: unknown }).description !== "string")
        missing.push(`${path}.${name}`);
      walk(field, `${path}.${name}`);
    }
    walk(additionalProperties, `${path}.*`);
    walk(items, `${path}[]`);
    for (const option of Array.isArray(anyOf) ? anyOf : []) walk(option, path);
  };
  walk(planJsonSchema(), "plan");
  expect(missing).toEqual([]);
});
