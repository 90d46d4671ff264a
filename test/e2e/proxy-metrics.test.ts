import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { METRICS } from "../../switchover/metrics.ts";
import { renderSidecarMetrics, SIDECAR_METRICS } from "../../switchover/sidecar-metrics.ts";
import { NOWHERE, send, startApp, startTestSidecar } from "../support/sidecar.ts";

const routes = [
  { method: "GET", path: "/users/:id", kind: "read", side: undefined },
  { method: "POST", path: '/say/"hi"', kind: "read", side: "old" },
] as const;
const promtool = spawnSync("promtool", ["--version"]).error === undefined;

/** The samples of one metric: labels and value, but for the sidecar's id. */
function samplesOf(text: string, name: string): string[] {
  return text
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`))
    .map((line) => line.slice(name.length).replace('sidecar="one",', ""))
    .toSorted((a, b) => a.localeCompare(b));
}

test("requests are counted by side, kind, the plan's route and the answer's class, also what fell back and what got no answer", async () => {
  const old = await startApp("old", ({ url }, response) => {
    response.writeHead(url === "/missing" ? 404 : 200).end("old");
  });
  const next = await startApp("new", (_, response) => response.writeHead(503).end());
  const { url, sidecar, source } = await startTestSidecar({
    old,
    new: next,
    proxy: { routes, consistency: "eventual" },
    state: { phase: "canary", readsNew: 1 },
  });
  const render = () => renderSidecarMetrics([{ id: "one", stats: sidecar.stats() }]);
  for (const id of [1, 2]) expect((await send(`${url}/users/${id}?q`)).body).toBe("old");
  source.set({ readsNew: 0 });
  await send(`${url}/missing`);
  await send(`${url}/users/3`, { method: "POST" });
  await send(`${url}/say/"hi"`, { method: "POST" });

  await expect
    .poll(() => samplesOf(render(), "crossfade_sidecar_requests_total"))
    .toEqual(
      [
        '{side="new",kind="read",route="GET /users/:id",answer="5xx"} 2',
        '{side="old",kind="read",route="GET /users/:id",answer="2xx"} 2',
        '{side="old",kind="read",route="other",answer="4xx"} 1',
        '{side="old",kind="read",route="POST /say/\\"hi\\"",answer="2xx"} 1',
        '{side="old",kind="write",route="other",answer="2xx"} 1',
      ].toSorted((a, b) => a.localeCompare(b)),
    );
  expect(samplesOf(render(), "crossfade_sidecar_fallbacks_total")).toEqual(['{sidecar="one"} 2']);
  const counts = samplesOf(render(), "crossfade_sidecar_request_duration_seconds_count");
  expect(counts).toContain('{side="old",kind="read",route="GET /users/:id"} 2');
  const last = samplesOf(render(), "crossfade_sidecar_request_duration_seconds_bucket");
  expect(last).toContain('{side="old",kind="read",route="GET /users/:id",le="+Inf"} 2');

  const away = await startTestSidecar({ old: NOWHERE, new: next });
  expect((await send(away.url)).status).toBe(502);
  const text = renderSidecarMetrics([{ id: "one", stats: away.sidecar.stats() }]);
  expect(samplesOf(text, "crossfade_sidecar_requests_total")).toEqual([
    '{side="old",kind="read",route="other",answer="none"} 1',
  ]);
});

test("writes that were held are counted with the time they waited", async () => {
  const { url, sidecar, source } = await startTestSidecar({ old: await startApp("old") });
  source.hold(1, 60_000);
  const held = send(url, { method: "POST", body: "x" });
  const value = (name: string) => {
    const [sample = ""] = samplesOf(
      renderSidecarMetrics([{ id: "one", stats: sidecar.stats() }]),
      name,
    );
    return Number(sample.split(" ").at(-1));
  };
  await expect.poll(() => value("crossfade_sidecar_held_writes")).toBe(1);
  source.set({ hold: null });
  await held;
  expect(value("crossfade_sidecar_held_writes")).toBe(0);
  expect(value("crossfade_sidecar_held_writes_total")).toBe(1);
  expect(value("crossfade_sidecar_held_seconds_total")).toBeGreaterThan(0);
});

test("docs/metrics.md names exactly what is exposed, and Prometheus takes it", async () => {
  const { url, sidecar } = await startTestSidecar({ old: await startApp("old") });
  await send(url);
  const stats = sidecar.stats();
  const text = renderSidecarMetrics([
    { id: 'a "b"\\c', stats: { ...stats, reads: { ...stats.reads, redis: "ok" } } },
  ]);
  const exposed = [...text.matchAll(/^# TYPE (\w+)/gm)].map(([, name]) => name);
  expect(exposed).toEqual(SIDECAR_METRICS.map(({ name }) => name));
  for (const { name } of SIDECAR_METRICS) expect(text).toMatch(new RegExp(`^${name}\\w*\\{`, "m"));
  const page = readFileSync(resolve(import.meta.dirname, "../../docs/metrics.md"), "utf8");
  const documented = [...page.matchAll(/^\| `(crossfade_\w+)`/gm)].map(([, name]) => name);
  expect(documented).toEqual([...METRICS, ...SIDECAR_METRICS].map(({ name }) => name));
  if (promtool) {
    const { status, stderr } = spawnSync("promtool", ["check", "metrics"], { input: text });
    expect(status, String(stderr)).toBe(0);
  }
});
