import { readFileSync, writeFileSync } from "node:fs";
import { ERROR_CODES } from "../config/errors.ts";
import { type AnyCommand } from "../cli/command.ts";
import { COMMANDS } from "../cli/commands.ts";
import { planJsonSchema } from "../config/json-schema.ts";
import { METRICS } from "../switchover/metrics.ts";
import { SIDECAR_METRICS } from "../switchover/sidecar-metrics.ts";

/** Writes the generated files of docs/; with --check it writes nothing and fails if one is not current. */

const GENERATED: Readonly<Record<string, () => string>> = {
  "crossfade.schema.json": () => `${JSON.stringify(planJsonSchema(), null, 2)}\n`,
  "errors.md": errorsPage,
  "metrics.md": metricsPage,
  "plan.md": planPage,
  "commands.md": commandsPage,
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

function metricsPage(): string {
  const ofSidecars = SIDECAR_METRICS.map((metric) => ({
    ...metric,
    labels: ["sidecar", ...metric.labels],
  }));
  const rows = [...METRICS, ...ofSidecars].map(
    ({ name, type, labels, help }) =>
      `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(", ")} | ${help} |`,
  );
  return `# Metrics

What \`/metrics\` of the operator port tells, as Prometheus text; a viewer's token reads it. Alerts on it are in
\`deploy/prometheus/alerts.yaml\`, a dashboard in \`deploy/grafana/dashboard.json\`. This page is generated from
\`switchover/metrics.ts\` and \`switchover/sidecar-metrics.ts\`.

What has the label \`sidecar\` travels with that sidecar's heartbeat, once a second: while a sidecar cannot reach the control store
its values stand still, and \`crossfade_sidecars_silent\` says so. They begin at 0 when it starts again.

| metric | type | labels | meaning |
|---|---|---|---|
${rows.join("\n")}
`;
}

interface JsonSchema {
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly type?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
}

function planPage(): string {
  const lines: string[] = [];
  const walk = (schema: JsonSchema, path: string) => {
    for (const [name, field] of Object.entries(schema.properties ?? {})) {
      const at = path === "" ? name : `${path}.${name}`;
      const isSection = field.properties !== undefined;
      const values =
        field.enum === undefined
          ? ""
          : ` One of ${field.enum.map((value) => `\`${String(value)}\``).join(", ")}.`;
      const fallback =
        isSection || field.default === undefined ? "" : `\`${JSON.stringify(field.default)}\``;
      lines.push(
        `| \`${at}\` | ${fallback} | ${(field.description ?? "").replaceAll("|", "\\|")}${values} |`,
      );
      if (isSection) walk(field, at);
    }
  };
  walk(planJsonSchema() as JsonSchema, "");
  return `# The plan file

\`crossfade.yaml\`, or the file that \`--plan\` names. Unknown keys are errors; \`\${VAR}\` and \`\${VAR:-default}\` come from the
environment. Editors read \`docs/crossfade.schema.json\`. This page is generated from the same schema.

| key | default | meaning |
|---|---|---|
${lines.join("\n")}
`;
}

/** What `--help` says, of every command. */
function commandsPage(): string {
  const section = (command: AnyCommand, name: string): string =>
    [
      `## crossfade ${name}`,
      command.details,
      ["```sh", ...command.examples, "```"].join("\n"),
      ...(command.options.length === 0
        ? []
        : [
            [
              "| option | meaning |",
              "|---|---|",
              ...command.options.map(
                ({ flags, description, defaultValue }) =>
                  `| \`${flags.replaceAll("|", "\\|")}\` | ${description}${defaultValue === undefined ? "" : ` (default: ${String(defaultValue)})`} |`,
              ),
            ].join("\n"),
          ]),
    ].join("\n\n");
  const sections = COMMANDS.flatMap((entry) =>
    "commands" in entry
      ? entry.commands.map((command) => section(command, `${entry.name} ${command.name}`))
      : [section(entry, entry.name)],
  );
  return `# Commands

Every command reads the plan (\`--plan\`, default \`crossfade.yaml\`) and takes \`--json\`: then stdout is one JSON document and
nothing else. Exit codes: 0 done, 1 failed, 2 usage or plan error, 3 refused by a gate or guard. This page is generated
from the commands' own help.

${sections.join("\n\n")}
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
