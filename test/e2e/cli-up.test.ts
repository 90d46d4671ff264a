import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import type { Status } from "../../switchover/status.ts";
import type { WalkResult } from "../../switchover/walk.ts";
import { CliProcess, isAlive, runCli } from "../support/cli.ts";
import { createDatabasePair, type DatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

interface UpDocument {
  readonly plan: string;
  readonly proxy: string;
  readonly operate: string;
  readonly roles: readonly { readonly role: string; readonly pid: number }[];
  readonly not_acting: readonly string[];
}

let pair: DatabasePair;
let planFile: string;

beforeEach(async () => {
  pair = await createDatabasePair();
  for (const url of [pair.oldUrl, pair.newUrl]) {
    await withClient(url, (client) =>
      client.query("create table users (id int primary key, name text not null)"),
    );
  }
  await withClient(pair.oldUrl, (client) =>
    client.query("insert into users select i, 'user ' || i from generate_series(1, 100) i"),
  );
  planFile = await planNamed("cli-up");
});

async function planNamed(name: string): Promise<string> {
  return writePlanFile({
    name,
    old: { database: pair.oldUrl, app: await startApp("old") },
    new: { database: pair.newUrl, app: await startApp("new") },
    forward: { users: { from: "users" } },
    reverse: { users: { from: "users" } },
    proxy: { listen: "127.0.0.1:0" },
    operate: { listen: "127.0.0.1:0" },
    gates: { canary: { samples: 5 } },
  });
}

/** An app that says which side it is. */
async function startApp(side: string): Promise<string> {
  const server = createServer((_, response) => response.end(side));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function startUp(): Promise<{
  up: CliProcess;
  document: UpDocument;
  pidOf: (role: string) => number;
}> {
  const up = new CliProcess(["up", "--plan", planFile, "--json"]);
  await expect.poll(() => up.stdout, { timeout: 60_000 }).toContain("}\n");
  const document = up.document<UpDocument>();
  return {
    up,
    document,
    pidOf: (role) => document.roles.find((entry) => entry.role === role)?.pid ?? 0,
  };
}

test("up runs every role, restarts what dies, drains on SIGTERM and exits 0", async () => {
  const { up, document, pidOf } = await startUp();
  expect(document.roles.map(({ role }) => role)).toEqual([
    "control",
    "mirror",
    "backfill",
    "proxy",
  ]);
  expect(document.not_acting).toEqual([]);
  const answer = await fetch(document.proxy);
  expect([answer.headers.get("crossfade-side"), await answer.text()]).toEqual(["old", "old"]);
  expect(await (await fetch(`${document.operate}/v1/status`)).json()).toMatchObject({
    phase: "off",
  });

  process.kill(pidOf("mirror"), "SIGKILL");
  await expect
    .poll(() => up.stderr, { timeout: 20_000 })
    .toContain("mirror: ended with SIGKILL; starting it again");

  const { document: status } = await runCli<Status>(planFile, "status");
  expect(status).toMatchObject({
    plan: "cli-up",
    phase: "off",
    authority: "old",
    reads: { new: 0 },
    quarantine: 0,
  });

  up.child.kill("SIGTERM");
  expect(await up.ended).toBe(0);
  expect(up.document()).toEqual(document);
  expect(document.roles.filter(({ pid }) => isAlive(pid))).toEqual([]);
});

test("no child outlives its supervisor, however that dies", async () => {
  const { up, document } = await startUp();
  up.child.kill("SIGKILL");
  await up.ended;
  await expect
    .poll(() => document.roles.filter(({ pid }) => isAlive(pid)), { timeout: 20_000 })
    .toEqual([]);
});

test("commands walk the phases with up running; refusals exit 3 and name their gates", async () => {
  const { up, document } = await startUp();
  const dry = await runCli<WalkResult>(planFile, "advance", "--to", "backfill", "--dry-run");
  expect(dry.exit).toBe(0);
  expect(dry.document.steps.map(({ from, to }) => `${from} ${to}`)).toEqual([
    "off dual-write",
    "dual-write backfill",
  ]);

  const advanced = await runCli<WalkResult>(planFile, "advance", "--to", "verify", "--wait");
  expect(advanced).toMatchObject({ exit: 0, document: { phase: "verify" } });
  const { rows } = await withClient(pair.newUrl, (client) =>
    client.query("select count(*)::int as n from users"),
  );
  expect(rows[0]).toEqual({ n: 100 });

  const verified = await runCli<{ run: { state: string; rows: number } }>(planFile, "verify");
  expect(verified).toMatchObject({ exit: 0, document: { run: { state: "clean", rows: 100 } } });

  const refused = await runCli<{ error: { code: string; message: string } }>(
    planFile,
    "advance",
    "--to",
    "dual-write",
  );
  expect(refused).toMatchObject({
    exit: 3,
    document: { error: { code: "REFUSED", hint: expect.stringContaining("rollback") } },
  });

  const paused = await runCli(planFile, "pause", "backfill");
  expect(paused).toMatchObject({
    exit: 0,
    document: { paused: { backfill: true, mirror: false } },
  });
  expect(await runCli(planFile, "resume")).toMatchObject({
    exit: 0,
    document: { paused: { backfill: false, mirror: false } },
  });
  expect(await runCli(planFile, "quarantine", "list")).toMatchObject({ exit: 0, document: [] });
  for (const one of [["show"], ["retry"], ["accept", "--as", "Ada", "--reason", "none"]])
    expect(await runCli(planFile, "quarantine", ...one, "17"), one[0]).toMatchObject({
      exit: 2,
      document: { error: { message: expect.stringMatching(/^quarantine has no (open )?key 17$/) } },
    });

  const clean = await runCli(planFile, "clean", "--yes");
  expect(clean).toMatchObject({
    exit: 3,
    document: { error: { message: expect.stringContaining("still running") } },
  });

  await expect.poll(() => logLines(up).map(({ phase }) => phase)).toContain("verify");
  // A second signal does not wait for anybody.
  up.child.kill("SIGTERM");
  up.child.kill("SIGINT");
  expect(await up.ended).toBe(1);
  await expect
    .poll(() => document.roles.filter(({ pid }) => isAlive(pid)), { timeout: 20_000 })
    .toEqual([]);
  const lines = logLines(up);
  for (const line of lines) {
    expect(line).toMatchObject({ plan: "cli-up", role: expect.any(String) });
    expect(Object.keys(line), JSON.stringify(line)).toEqual(
      expect.arrayContaining(["phase", "epoch"]),
    );
  }
  expect(new Set(lines.map(({ role }) => role))).toContain("control");
  // The supervisor has no connection of its own: its children tell it.
  expect(lines.find(({ msg }) => msg === "stopped before everything was done")).toMatchObject({
    role: "up",
    phase: "verify",
    epoch: 1,
  });
});

/** What all processes of `up` said, line by line. */
function logLines(up: CliProcess): Record<string, unknown>[] {
  return up.stderr
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

test("without up: status says so, a command runs a controller itself, clean leaves nothing", async () => {
  const before = await runCli<Status>(planFile, "status");
  expect(before).toMatchObject({
    exit: 0,
    document: { phase: "off", controller: { leading: false } },
  });
  expect(await runCli(planFile, "rollback")).toMatchObject({
    exit: 3,
    document: { error: { hint: expect.stringContaining("crossfade up") } },
  });

  // Two people at once: one step is taken. The second is refused, as meant from elsewhere, or by the gates if it looked later.
  const both = await Promise.all([runCli(planFile, "advance"), runCli(planFile, "advance")]);
  expect(both.toSorted((a, b) => Number(a.exit) - Number(b.exit))).toMatchObject([
    { exit: 0, document: { phase: "dual-write", steps: [{ from: "off", to: "dual-write" }] } },
    { exit: 3, document: { error: { code: "REFUSED" } } },
  ]);
  expect(await runCli(planFile, "status")).toMatchObject({ document: { phase: "dual-write" } });
  const refused = await runCli<{ error: { gates: { name: string; state: string }[] } }>(
    planFile,
    "advance",
  );
  expect(refused).toMatchObject({
    exit: 3,
    document: {
      error: {
        gates: expect.arrayContaining([expect.objectContaining({ name: "lag", state: "unknown" })]),
      },
    },
  });
  // A plan of another name moves, shows and removes nothing of this one.
  const other = await planNamed("other");
  for (const command of [["advance"], ["pause"], ["up"], ["clean", "--yes"]])
    expect(await runCli(other, ...command), command.join(" ")).toMatchObject({
      exit: 2,
      document: { error: { code: "DATABASE_UNFIT", message: expect.stringContaining("cli-up") } },
    });
  expect(await runCli<Status>(other, "status")).toMatchObject({
    exit: 2,
    document: { phase: "unknown", problems: [expect.stringContaining("another plan")] },
  });
  expect(await runCli(planFile, "clean")).toMatchObject({
    exit: 3,
    document: { error: { hint: expect.stringContaining("--yes") } },
  });
  expect(await runCli(planFile, "clean", "--yes")).toMatchObject({
    exit: 0,
    document: { cleaned: true },
  });
  for (const url of [pair.oldUrl, pair.newUrl]) {
    const { rows } = await withClient(url, (client) =>
      client.query("select nspname from pg_namespace where nspname like 'crossfade%'"),
    );
    expect(rows).toEqual([]);
  }
});
