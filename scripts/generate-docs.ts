import { readFileSync, writeFileSync } from "node:fs";
import { ERROR_CODES } from "../config/errors.ts";
import { planJsonSchema } from "../config/json-schema.ts";

/** Writes the generated files of docs/; with --check it writes nothing and fails if one is not current. */

const GENERATED: Readonly<Record<string, () => string>> = {
  "crossfade.schema.json": () => `${JSON.stringify(planJsonSchema(), null, 2)}\n`,
  "errors.md": errorsPage,
};

function errorsPage(): string {
  const rows = Object.entries(ERROR_CODES).map(
    ([code, { exit, meaning }]) => `| \`${code}\` | ${exit} | ${meaning} |`,
  );
  return `# Errors

Every error a command prints has one of these codes (with \`--json\`: \`error.code\`), and usually a hint that says what
to do next. The codes are stable; the texts are not. This page is generated from \`config/errors.ts\`.

| code | exit | meaning |
|---|---|---|
${rows.join("\n")}

Exit codes: 0 done, 1 failed, 2 the command line, the plan or a database does not hold (nothing was changed), 3 refused by
a gate or a guard (nothing was changed).
`;
}

function current(path: URL): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

const check = process.argv.includes("--check");
const stale: string[] = [];
for (const [name, content] of Object.entries(GENERATED)) {
  const path = new URL(`../docs/${name}`, import.meta.url);
  if (current(path) === content()) continue;
  stale.push(`docs/${name}`);
  if (!check) writeFileSync(path, content());
}
if (check && stale.length > 0) {
  process.stderr.write(`Not current: ${stale.join(", ")}. Run: node scripts/generate-docs.ts\n`);
  process.exitCode = 1;
}
