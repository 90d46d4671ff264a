import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "crossfade-loadtest-"));
const servers: Server[] = [];
const seen = new Set<string>();
let [good, failing] = ["", ""];

async function start(status: number): Promise<string> {
  const server = createServer((request, response) => {
    request.resume();
    seen.add(`${request.method} ${request.url} ${String(request.headers["x-key"])}`);
    response.writeHead(status, { "content-length": 2 }).end("ok");
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  servers.push(server);
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

beforeAll(async () => {
  good = await start(200);
  failing = await start(500);
});
afterAll(() => {
  for (const server of servers) server.close().closeAllConnections();
  rmSync(folder, { recursive: true, force: true });
});

function loadtest(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const main = resolve(import.meta.dirname, "../../loadtest/loadtest.ts");
  const all = [main, "--quick", "--connections", "4", "--rate", "40", "--out", folder, ...args];
  return new Promise((done) => {
    execFile(process.execPath, all, (error, stdout, stderr) =>
      done({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

function budget(text: string): string {
  const file = join(folder, "budget.yaml");
  writeFileSync(file, text);
  return file;
}

test("a service within its budget: exit 0, one document, the files", async () => {
  const { code, stdout } = await loadtest(
    "--target",
    good,
    "--through",
    good,
    "--path",
    "/a?b=c",
    "--method",
    "POST",
    "--header",
    "x-key: k",
    "--json",
    "--budget",
    budget("limits: [{ errors: 0, p50_ratio: 1000 }]"),
  );
  expect(code).toBe(0);
  const report = JSON.parse(stdout) as {
    budget: object;
    cells: { direct: { requests: number } }[];
  };
  expect(report.budget).toEqual({ ok: true, compared: 3, broken: [] });
  for (const { direct } of report.cells) expect(direct.requests).toBeGreaterThan(0);
  expect([...seen]).toContain("POST /a?b=c k");
  expect(stdout).not.toContain("b=c");
  expect(JSON.parse(readFileSync(join(folder, "loadtest.json"), "utf8"))).toEqual(report);
  expect(readFileSync(join(folder, "loadtest.html"), "utf8")).toContain("<!doctype html>");
});

test("a service that fails behind its sidecar: exit 1, every broken limit named", async () => {
  const { code, stdout } = await loadtest(
    "--target",
    good,
    "--through",
    failing,
    "--budget",
    budget("limits: [{ errors: 0 }]"),
  );
  expect(code).toBe(1);
  expect(stdout).toMatch(/over budget: limits\[0\]\.errors: found \d+ in request, at a fixed rate/);
  expect(stdout).toMatch(/over budget: limits\[0\]\.errors: found \d+ in request, at saturation/);
});

test("what does not hold: exit 2, before anything is sent", async () => {
  const file = await loadtest("--target", good, "--budget", budget("limits: [{ error: 0 }]"));
  expect(file).toMatchObject({ code: 2, stdout: "" });
  expect(file.stderr).toContain("limits[0].error");
  const flag = await loadtest("--target", "ftp://x");
  expect(flag).toMatchObject({ code: 2, stdout: "" });
  expect((await loadtest("--through", good)).stderr).toContain("needs --target");
});
