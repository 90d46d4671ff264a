import { expect, test } from "vitest";
import { CliProcess, runCli } from "../support/cli.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { writePlanFile } from "../support/plan-files.ts";

const LONG = { timeout: 60_000, interval: 20 };

async function world() {
  const { oldUrl, newUrl } = await createDatabasePair();
  for (const url of [oldUrl, newUrl])
    await withClient(url, (client) =>
      client.query("create table users (id int primary key, name text not null)"),
    );
  const plan = writePlanFile({
    name: "takeover",
    old: { database: oldUrl, app: "http://127.0.0.1:9" },
    new: { database: newUrl, app: "http://127.0.0.1:9" },
    forward: { users: { from: "users" } },
    reverse: { users: { from: "users" } },
    operate: { listen: "127.0.0.1:0" },
  });
  /** The process id that leads, as the controller's lead session names it. */
  const leader = () =>
    withClient(oldUrl, async (client) => {
      const { rows } = await client.query<{ name: string }>(
        `select a.application_name as name from pg_locks l join pg_stat_activity a on a.pid = l.pid
         where l.locktype = 'advisory' and l.granted and a.application_name like 'crossfade lead % takeover'
           and l.database = (select oid from pg_database where datname = current_database())`,
      );
      return rows[0]?.name;
    });
  const start = async () => {
    const process = new CliProcess(["control", "--plan", plan, "--json"]);
    await expect.poll(() => process.stdout, LONG).toContain("}");
    return process;
  };
  return { plan, leader, start };
}

test(
  "a controller that is killed, or stands still, is followed by the other within seconds",
  { timeout: 240_000 },
  async () => {
    const { plan, leader, start } = await world();
    const first = await start();
    await expect.poll(leader, LONG).toBeDefined();
    const second = await start();
    const before = await leader();
    const killed = performance.now();
    first.child.kill("SIGKILL");
    await expect.poll(async () => (await leader()) ?? before, LONG).not.toBe(before);
    const afterKill = performance.now() - killed;
    expect(await runCli(plan, "advance")).toMatchObject({
      exit: 0,
      document: { phase: "dual-write" },
    });

    await start();
    const standing = await leader();
    const stopped = performance.now();
    second.child.kill("SIGSTOP");
    await expect.poll(async () => (await leader()) ?? standing, LONG).not.toBe(standing);
    const afterStop = performance.now() - stopped;
    expect(await runCli(plan, "rollback")).toMatchObject({ exit: 0, document: { phase: "off" } });
    const said = second.stderr.length;
    second.child.kill("SIGCONT");
    // It finds that it does not lead any more, or first that a connection has waited too long for it, and waits; nothing it had
    // in mind is done.
    await expect
      .poll(() => second.stderr.slice(said), LONG)
      .toMatch(/does not lead any more|lead is lost|trying again/);
    expect(await runCli(plan, "status")).toMatchObject({ document: { phase: "off" } });
    const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
    // oxlint-disable-next-line no-console -- how long it takes is worth knowing, and not worth failing for on a loaded machine
    console.log(
      `takeover after SIGKILL: ${seconds(afterKill)}; after SIGSTOP: ${seconds(afterStop)}`,
    );
  },
);
