import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { parse } from "yaml";
import { freePort } from "../../examples/support/free-port.ts";
import { METRICS } from "../../switchover/metrics.ts";
import { CliProcess, runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

const DEPLOY = resolve(import.meta.dirname, "../../deploy");
const installed = (command: string) => spawnSync(command, ["--version"]).error === undefined;
const promtool = installed("promtool");
const prometheus = installed("prometheus");
const absent = (found: boolean) => (found ? "" : " (Prometheus is not installed here)");

const rules = parse(readFileSync(join(DEPLOY, "prometheus/alerts.yaml"), "utf8")) as {
  groups: { rules: { alert: string; expr: string; annotations: { runbook: string } }[] }[];
};
const alerts = rules.groups.flatMap((group) => group.rules);
const dashboard = JSON.parse(readFileSync(join(DEPLOY, "grafana/dashboard.json"), "utf8")) as {
  panels: { title: string; targets: { expr: string }[] }[];
};

describe("alerts", () => {
  test.skipIf(!promtool)(`hold and fire as they should${absent(promtool)}`, () => {
    for (const args of [
      ["check", "rules", "alerts.yaml"],
      ["check", "config", "--syntax-only", "prometheus.yaml"],
      ["test", "rules", "alerts.test.yaml"],
    ]) {
      const { status, stdout, stderr } = spawnSync("promtool", args, {
        cwd: join(DEPLOY, "prometheus"),
        encoding: "utf8",
      });
      expect(status, stdout + stderr).toBe(0);
    }
  });

  test("each has a runbook, and names metrics that exist", () => {
    const runbooks = readFileSync(resolve(DEPLOY, "../docs/runbooks.md"), "utf8");
    const sections = [...runbooks.matchAll(/^## (\w+)$/gm)].map(([, name]) => name ?? "");
    expect(sections).toEqual(alerts.map(({ alert }) => alert));
    for (const { alert, expr, annotations } of alerts) {
      expect(annotations.runbook).toBe(`docs/runbooks.md#${alert.toLowerCase()}`);
      for (const [name] of expr.matchAll(/crossfade_\w+/g))
        expect(METRICS.map((metric) => metric.name)).toContain(name);
    }
  });
});

/** A Prometheus that scrapes one target every second; stopped and removed with the test. */
async function startPrometheus(target: string): Promise<(query: string) => Promise<unknown[]>> {
  const folder = mkdtempSync(join(tmpdir(), "crossfade-prometheus-"));
  writeFileSync(
    join(folder, "prometheus.yml"),
    `global: { scrape_interval: 1s }\nscrape_configs: [{ job_name: crossfade, static_configs: [{ targets: ["${target}"] }] }]\n`,
  );
  const port = await freePort();
  const child = spawn(
    "prometheus",
    [
      `--config.file=${join(folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    { stdio: "ignore" },
  );
  const ended = new Promise((done) => child.once("close", done));
  onTestFinished(async () => {
    child.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  });
  return async (query) => {
    const answer = await fetch(
      `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(query)}`,
    );
    const body = (await answer.json()) as { status: string; data: { result: unknown[] } };
    expect(body.status, query).toBe("success");
    return body.data.result;
  };
}

test.skipIf(!prometheus)(
  `a real Prometheus finds every documented metric and data for every query of the dashboard${absent(prometheus)}`,
  async () => {
    const { oldUrl, newUrl } = await createDatabasePair();
    for (const url of [oldUrl, newUrl])
      await withClient(url, (client) => client.query("create table t (id int primary key)"));
    await withClient(oldUrl, (client) =>
      client.query("insert into t select generate_series(1, 50)"),
    );
    const plan = writePlanFile({
      name: "scraped",
      old: { database: oldUrl, app: "http://127.0.0.1:1" },
      new: { database: newUrl, app: "http://127.0.0.1:1" },
      forward: "identity",
      reverse: "identity",
      proxy: { listen: "127.0.0.1:0" },
      operate: { listen: "127.0.0.1:0" },
    });
    const up = new CliProcess(["up", "--plan", plan, "--json"]);
    await expect.poll(() => up.stdout, { timeout: 60_000 }).toContain("}\n");
    const { operate } = up.document<{ operate: string }>();
    const query = await startPrometheus(new URL(operate).host);
    const advanced = await runCli(plan, "advance", "--to", "verify", "--wait");
    expect(advanced.exit, advanced.stdout).toBe(0);
    expect((await runCli(plan, "verify")).exit).toBe(0);

    const exposed = await (await fetch(`${operate}/metrics`)).text();
    for (const { name, type } of METRICS) expect(exposed).toContain(`# TYPE ${name} ${type}`);
    const queries = dashboard.panels.flatMap(({ title, targets }) =>
      targets.map(({ expr }) => ({ title, expr })),
    );
    expect(queries.length).toBeGreaterThan(15);
    for (const { title, expr } of queries)
      await expect
        .poll(async () => (await query(expr)).length, {
          timeout: 30_000,
          interval: 500,
          message: `${title}: ${expr}`,
        })
        .toBeGreaterThan(0);
  },
);
