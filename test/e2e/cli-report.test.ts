import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import type { Report } from "../../switchover/report/report.ts";
import { CliProcess, runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

async function planOf(changes: Record<string, unknown> = {}): Promise<string> {
  const pair = await createDatabasePair();
  for (const url of [pair.oldUrl, pair.newUrl])
    await withClient(url, (client) => client.query("create table users (id int primary key)"));
  return writePlanFile({
    name: "reported",
    old: { database: pair.oldUrl, app: "http://127.0.0.1:1" },
    new: { database: pair.newUrl, app: "http://127.0.0.1:1" },
    forward: "identity",
    operate: { tokens: "s3cret-token:operator" },
    notify: ["https://hooks.example/T000/s3cret-path"],
    ...changes,
  });
}

test("before anything is installed the report says so", async () => {
  const { exit, document } = await runCli<Report>(await planOf(), "report");
  expect(exit).toBe(0);
  expect(document).toMatchObject({
    plan: "reported",
    verdict: { ok: true, sentence: expect.stringContaining("Nothing is installed") },
    timeline: [],
    stays: [],
  });
});

test("the same facts in every format, and no secret in any", async () => {
  const plan = await planOf();
  expect((await runCli(plan, "advance")).exit).toBe(0);
  const approved = await runCli(
    plan,
    "approve",
    "done",
    "--as",
    "<b>Ann|</b>",
    "--reason",
    "<i>x</i>",
  );
  expect(approved.exit, approved.stdout).toBe(0);
  const folder = dirname(plan);
  const written: Record<string, string> = {};
  for (const format of ["html", "md", "json"]) {
    const file = join(folder, `report.${format}`);
    const cli = new CliProcess(["report", "--plan", plan, "--format", format, "--out", file]);
    expect(await cli.ended, cli.stderr).toBe(0);
    expect(cli.stdout).toContain("Good. In dual-write, with old as the authority");
    written[format] = readFileSync(file, "utf8");
  }
  const { html = "", md = "", json = "" } = written;
  const report = JSON.parse(json) as Report;
  expect(report.stays).toMatchObject([{ phase: "dual-write", to: null }]);
  expect(report.timeline.map(({ kind }) => kind)).toEqual(["phase", "approve"]);
  for (const event of report.timeline) {
    const at = new Date(event.at).toISOString();
    expect(html).toContain(at);
    expect(md).toContain(at);
  }
  const servers = `Old runs PostgreSQL ${report.versions.old}, new runs PostgreSQL ${report.versions.new}.`;
  expect(servers).toMatch(/PostgreSQL \d+\.\d+.*PostgreSQL \d+\.\d+/);
  expect(html).toContain(servers);
  expect(md).toContain(servers);
  for (const gate of report.status.gates) {
    expect(html).toContain(`<td>${gate.name}</td><td>${gate.state}</td>`);
    expect(md).toContain(`| ${gate.name} | ${gate.state} |`);
  }
  for (const text of [html, md, json]) {
    expect(text).not.toContain("postgres:postgres");
    expect(text).not.toContain("s3cret");
  }
  expect(html).not.toMatch(/<(script|link|img|iframe)|<b>|<i>|url\(/);
  expect(md).not.toMatch(/<b>|Ann\|/);
  expect(report.configuration).toMatchObject({
    name: "reported",
    notify: ["https://hooks.example"],
  });
  const block = md.split("## Configuration, without secrets\n\n")[1] ?? "";
  expect(parse(block.replaceAll(/^ {4}/gm, ""))).toEqual(report.configuration);
});
