import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { startAll } from "../../cli/start-roles.ts";
import { restartDelay, Supervisor } from "../../cli/supervisor.ts";

/** A child that notes its start in a file and then does what `body` says; `ready()` tells the supervisor. */
function child(body: string): { argsFor: () => readonly string[]; starts: () => number } {
  const folder = mkdtempSync(join(tmpdir(), "crossfade-child-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const [script, starts] = [join(folder, "child.mjs"), join(folder, "starts")];
  writeFileSync(starts, "");
  writeFileSync(
    script,
    `import { appendFileSync, readFileSync } from "node:fs";
     appendFileSync(${JSON.stringify(starts)}, "x");
     const start = readFileSync(${JSON.stringify(starts)}, "utf8").length;
     const ready = () => process.send({ t: "ready", listen: "127.0.0.1:" + start });
     const fail = (error, code) => process.send({ t: "failed", error }, () => process.exit(code));
     process.on("disconnect", () => process.exit(0));
     ${body}`,
  );
  return { argsFor: () => [script], starts: () => readFileSync(starts, "utf8").length };
}

function supervise(options: { argsFor: (role: string) => readonly string[] }) {
  const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
  const supervisor = new Supervisor({ log, firstDelayMs: 10, maxDelayMs: 40, ...options });
  onTestFinished(() => supervisor.kill());
  return { supervisor, log };
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test("restarts come later and later, up to a limit", () => {
  expect([1, 2, 3, 4, 5, 6, 100].map((crashes) => restartDelay(crashes, 200, 5_000))).toEqual([
    200, 400, 800, 1_600, 3_200, 5_000, 5_000,
  ]);
});

test("start resolves with the address once the child is ready; stop waits until it is gone", async () => {
  const { supervisor } = supervise(
    child(`process.on("SIGTERM", () => process.exit(0)); ready(); setInterval(() => {}, 1000);`),
  );
  await expect(supervisor.start("proxy")).resolves.toBe("127.0.0.1:1");
  const pid = supervisor.pids["proxy"] ?? 0;
  expect(alive(pid)).toBe(true);
  await supervisor.stop();
  expect(alive(pid)).toBe(false);
  expect(supervisor.pids).toEqual({});
});

test("a child that crashes is started again, with the reason in the log", async () => {
  const script = child(
    `ready(); if (start < 3) fail({ code: "FAILED", message: "boom " + start }, 1); else setInterval(() => {}, 1000);`,
  );
  const { supervisor, log } = supervise(script);
  await supervisor.start("mirror");
  await expect.poll(() => script.starts()).toBe(3);
  expect(log.warn.mock.calls.map(([, message]) => message)).toEqual([
    "mirror: boom 1; starting it again",
    "mirror: boom 2; starting it again",
  ]);
});

test("a child that is killed is started again", async () => {
  const script = child(`ready(); setInterval(() => {}, 1000);`);
  const { supervisor } = supervise(script);
  await supervisor.start("mirror");
  process.kill(supervisor.pids["mirror"] ?? 0, "SIGKILL");
  await expect.poll(() => script.starts()).toBe(2);
});

test("a usage error before the first ready is final", async () => {
  const script = child(`fail({ code: "PORT_IN_USE", message: "taken", hint: "stop it" }, 2);`);
  const { supervisor } = supervise(script);
  await expect(supervisor.start("proxy")).rejects.toMatchObject({
    code: "PORT_IN_USE",
    message: "taken",
    hint: "stop it",
    exitCode: 2,
  });
  expect(script.starts()).toBe(1);
});

test("the same error after it was ready is not: a database may be away for a minute", async () => {
  const script = child(
    `ready(); if (start === 1) fail({ code: "DATABASE_UNREACHABLE", message: "away" }, 2); else setInterval(() => {}, 1000);`,
  );
  const { supervisor } = supervise(script);
  await supervisor.start("mirror");
  await expect.poll(() => script.starts()).toBe(2);
});

test("a crash before ready does not end the wait for it", async () => {
  const script = child(`if (start < 3) process.exit(1); ready(); setInterval(() => {}, 1000);`);
  const { supervisor } = supervise(script);
  await expect(supervisor.start("mirror")).resolves.toBe("127.0.0.1:3");
});

test("stop while a restart is due starts nothing more", async () => {
  const script = child(`process.exit(1);`);
  const { supervisor, log } = supervise({ ...script });
  const started = supervisor.start("mirror");
  started.catch(() => {});
  await expect.poll(() => log.warn.mock.calls.length).toBeGreaterThan(0);
  await supervisor.stop();
  await supervisor.stop();
  expect(supervisor.pids).toEqual({});
});

describe("two `up` at the same moment", () => {
  /** Every role is the same program; which it is, it is told. */
  const roles = (body: string) => {
    const { argsFor } = child(
      `const role = process.argv[2];
       const taken = () => fail({ code: "PORT_IN_USE", message: role + " is taken" }, 2);
       const works = () => { ready(); setInterval(() => {}, 1000); };
       ${body}`,
    );
    return supervise({ argsFor: (role) => [...argsFor(), role] });
  };

  test("who has the sidecar's address waits for the other one", async () => {
    const { supervisor } = roles(`if (role === "control" && start < 5) taken(); else works();`);
    const started = await startAll(supervisor, ["control", "proxy"]);
    expect(started.map(({ name }) => name)).toEqual(["control", "proxy"]);
  });

  test("one that is told to stop while it waits starts nothing any more", async () => {
    const { supervisor } = roles(`if (role === "control") taken(); else works();`);
    const started = startAll(supervisor, ["control", "proxy"]);
    await expect.poll(() => Object.keys(supervisor.pids)).toEqual(["proxy"]);
    await supervisor.stop();
    await expect(started).rejects.toMatchObject({ message: "stopped while starting" });
    expect(supervisor.pids).toEqual({});
  });

  test("who has not got it ends, whatever else it has", async () => {
    const { supervisor } = roles(`if (role === "proxy") taken(); else works();`);
    await expect(startAll(supervisor, ["control", "proxy"])).rejects.toMatchObject({
      code: "PORT_IN_USE",
      message: "proxy is taken",
    });
  });

  test("an address that stays taken is refused after a while, and without a sidecar at once", async () => {
    const { supervisor } = roles(`if (role === "control") taken(); else works();`);
    for (const [names, giveWayMs] of [
      [["control", "proxy"], 0],
      [["control", "mirror"], 60_000],
    ] as const)
      await expect(startAll(supervisor, names, giveWayMs)).rejects.toMatchObject({
        message: "control is taken",
      });
  });
});
