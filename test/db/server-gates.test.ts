import { expect, onTestFinished, test } from "vitest";
import { NO_POLICY } from "../../config/policy.ts";
import { NO_SERVER_LIMITS } from "../../config/server-limits.ts";
import type { ServerLimits } from "../../config/server-limits.ts";
import { startEmbeddedPostgres } from "../../examples/support/embedded-postgres.ts";
import { applicationName, closeSession, openSession } from "../../store/postgres/session.ts";
import { readServerHealth } from "../../store/postgres/server-health.ts";
import { serverGates } from "../../switchover/server-gates.ts";
import { ask, itemsPlan, runWorkers, startController } from "../support/controller-world.ts";
import { withClient } from "../support/databases.ts";
import { startStandby } from "../support/standby.ts";

async function health(url: string) {
  const application = applicationName("test", "control", "old");
  const client = await openSession({ url, name: "old database", application });
  try {
    return await readServerHealth(client);
  } finally {
    await closeSession(client);
  }
}

/** The one gate these limits ask for, with this server as old and a quiet one as new. */
async function gate(url: string, limits: Partial<ServerLimits>) {
  const quiet = {
    transactions: { open: 0, oldest: undefined },
    replicas: [],
    slots: [],
    databaseBytes: 1e6,
  };
  const servers = { old: await health(url), new: quiet };
  return serverGates(servers, { ...NO_SERVER_LIMITS, ...limits })[0];
}

/** A session in a transaction, until the test ends. */
async function openTransaction(
  url: string,
): Promise<{ readonly pid: number; end(): Promise<void> }> {
  const client = await openSession({ url, name: "app", application: "night job" });
  await client.query("begin");
  const { rows } = await client.query<{ pid: string }>("select pg_backend_pid() as pid");
  let ended = false;
  const end = async () => {
    if (!ended) await closeSession(client);
    ended = true;
  };
  onTestFinished(end);
  return { pid: Number(rows[0]?.pid), end };
}

test(
  "long transactions, slots, size and standbys of a real server: named, and unknown where nothing can be seen",
  { timeout: 240_000 },
  async () => {
    const server = await startEmbeddedPostgres({ settings: { max_prepared_transactions: "5" } });
    onTestFinished(() => server.stop());
    const url = await server.createDatabase("app");

    const limits = { transactionMs: 200 };
    expect(await gate(url, limits)).toMatchObject({
      state: "pass",
      value: "old none open, new none open",
    });
    const job = await openTransaction(url);
    await expect
      .poll(() => gate(url, limits))
      .toMatchObject({
        name: "transactions",
        state: "fail",
        limit: "none older than 0.2 s",
        value: expect.stringMatching(/^old [\d.]+ s$/) as string,
        why: `pid ${job.pid} (postgres, night job, idle in transaction): select pg_backend_pid() as pid; wait for it, or end it on old with \`select pg_terminate_backend(${job.pid})\``,
      });
    expect(await gate(url, { transactionMs: 600_000 })).toMatchObject({
      state: "pass",
      samples: 1,
    });
    await withClient(url, (client) =>
      client.query("create role watcher login password 'w'; create table t (id int)"),
    );
    const asWatcher = url.replace("postgres:postgres@", "watcher:w@");
    expect(await gate(asWatcher, limits)).toMatchObject({
      state: "unknown",
      why: "old database: our role may not see it: grant pg_monitor",
    });
    await withClient(url, (client) => client.query("grant pg_monitor to watcher"));
    expect(await gate(asWatcher, limits)).toMatchObject({ state: "fail" });
    await job.end();
    await withClient(url, (client) =>
      client.query("begin; insert into t values (1); prepare transaction 'it''s'"),
    );
    await expect
      .poll(() => gate(url, limits))
      .toMatchObject({
        state: "fail",
        why: expect.stringContaining("end it on old with `rollback prepared 'it''s'`") as string,
      });
    await withClient(url, (client) => client.query("rollback prepared 'it''s'"));
    expect(await gate(url, limits)).toMatchObject({ state: "pass" });

    expect(await gate(url, { walBytes: 1e6 })).toMatchObject({
      state: "pass",
      value: "old 0.0 MB, new 0.0 MB",
    });
    await withClient(url, (client) =>
      client.query("select pg_create_physical_replication_slot('forgotten', true)"),
    );
    const fill = () =>
      withClient(url, (client) =>
        client.query("insert into t select n from generate_series(1, 40000) n"),
      );
    await fill();
    expect(await gate(url, { walBytes: 1e6 })).toMatchObject({
      name: "wal",
      state: "fail",
      limit: "at most 1.0 MB for one slot",
      why: "slot forgotten of old: nobody reads it",
    });
    expect(await gate(url, { walBytes: 1e12 })).toMatchObject({ state: "pass" });
    await withClient(url, (client) => client.query("select pg_drop_replication_slot('forgotten')"));
    expect(await gate(url, { walBytes: 1e6 })).toMatchObject({ state: "pass" });

    expect(await gate(url, { diskBytes: 1e12 })).toMatchObject({ state: "pass" });
    expect(await gate(url, { diskBytes: 2e6 })).toMatchObject({
      name: "disk",
      state: "fail",
      value: expect.stringMatching(/^old \d+\.\d MB$/) as string,
    });

    const replicas = { lagMs: 400, old: 0, new: 0 };
    expect(await gate(url, { replicas }), "no data is no success").toMatchObject({
      state: "unknown",
      why: expect.stringContaining("no standby is connected to either database") as string,
    });
    const standby = await startStandby(server, "frankfurt");
    await expect
      .poll(() => gate(url, { replicas: { ...replicas, old: 1 } }), { timeout: 20_000 })
      .toMatchObject({ name: "replicas", state: "pass", samples: 1 });
    await withClient(standby.url, (client) => client.query("select pg_wal_replay_pause()"));
    await fill();
    await expect
      .poll(() => gate(url, { replicas }), { timeout: 20_000 })
      .toMatchObject({
        state: "fail",
        limit: "all within 0.4 s",
        why: "standby frankfurt of old is behind",
      });
    await withClient(standby.url, (client) => client.query("select pg_wal_replay_resume()"));
    await expect
      .poll(() => gate(url, { replicas }), { timeout: 20_000 })
      .toMatchObject({ state: "pass" });
    await standby.stop();
    await expect
      .poll(() => gate(url, { replicas: { ...replicas, old: 1 } }), { timeout: 20_000 })
      .toMatchObject({
        state: "fail",
        why: "old has 0 standbys connected, not 1: one is down or cut off",
      });
  },
);

test(
  "an advance is refused by them, says so in its dry run, and with --wait goes on when they pass",
  { timeout: 240_000 },
  async () => {
    const servers = { ...NO_SERVER_LIMITS, transactionMs: 100, diskBytes: 1e12 };
    const plan = { ...(await itemsPlan()), policy: { ...NO_POLICY, servers } };
    await startController(plan);
    runWorkers(plan);
    await ask(plan, "advance");
    const job = await openTransaction(plan.new.database);
    await expect
      .poll(async () => (await health(plan.new.database)).transactions, { timeout: 20_000 })
      .toMatchObject({
        oldest: { ageMs: expect.toSatisfy((age: number) => age > 1_500) as number },
      });
    await expect(ask(plan, "advance")).rejects.toMatchObject({
      code: "REFUSED",
      gates: expect.arrayContaining([
        expect.objectContaining({
          name: "transactions",
          state: "fail",
          why: expect.stringContaining(`pid ${job.pid} `) as string,
        }),
        expect.objectContaining({ name: "disk", state: "pass" }),
      ]) as unknown,
    });
    expect(await ask(plan, "advance", { dryRun: true })).toMatchObject({
      steps: [
        {
          gates: expect.arrayContaining([
            expect.objectContaining({ name: "transactions" }),
          ]) as unknown,
        },
      ],
    });
    const waiting = ask(plan, "advance", { wait: true });
    await job.end();
    expect(await waiting).toMatchObject({ phase: "backfill" });
  },
);
