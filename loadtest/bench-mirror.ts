import { parseArgs } from "node:util";
import pg from "pg";
import { percentile, printReport, Recorder } from "./bench.ts";
import { crossfade, startRole, untilReady } from "./cli.ts";
import { type BenchWorld, execute, startBenchWorld } from "./world.ts";

/**
 * Following the log, beside Postgres' own logical replication between the same two servers, in alternating rounds:
 * commit on old → visible on new at low load; draining a backlog of single-row transactions; and what the source still
 * does with the mirror running, against a table that nobody captures, and one whose trigger logs whole rows. And how many
 * changes of a hot row one sync is for.
 */
const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    feed: { type: "string", default: "trigger" },
  },
});
const ROUNDS = options.quick ? 1 : 3;
const SAMPLES = options.quick ? 150 : 300;
const BACKLOG = options.quick ? 10_000 : 100_000;
const LOAD_MS = options.quick ? 3_000 : 10_000;
const CLIENTS = 8;
const ROWS = 10_000;
const PAUSE_MS = 10;

type Table = "ours" | "native" | "bare" | "whole";

const world = await startBenchWorld();
const recorder = new Recorder();
try {
  for (const table of ["ours", "native", "bare", "whole"]) {
    await execute(
      world.oldUrl,
      `create table ${table} (id int primary key, n bigint not null); insert into ${table} select i, 0 from generate_series(1, ${ROWS}) i`,
    );
    if (table === "ours" || table === "native")
      await execute(world.newUrl, `create table ${table} (id int primary key, n bigint not null)`);
  }
  // What many a homemade dual-write does: the row as it is, into a table. Nobody reads it.
  await execute(
    world.oldUrl,
    `create table whole_log (id bigint generated always as identity primary key, at timestamptz not null default now(), row jsonb not null);
     create function log_whole() returns trigger language plpgsql as $$
       begin insert into whole_log (row) values (to_jsonb(coalesce(new, old))); return null; end $$;
     create trigger log_whole after insert or update or delete on whole for each row execute function log_whole()`,
  );
  await execute(world.oldUrl, "create publication native for table native");
  await execute(
    world.newUrl,
    `create subscription native connection '${world.oldUrl}' publication native`,
  );
  const { file } = world.writePlan({
    feed: options.feed,
    forward: { ours: { from: "ours" } },
  });
  const roles = ["control", "mirror", "backfill"].map((role) => startRole(role, file));
  try {
    await untilReady(file);
    await crossfade("advance", "--plan", file, "--to", "verify", "--wait");
    for (let round = 0; round < ROUNDS; round += 1) await measure(world, file);
  } finally {
    await Promise.all(roles.map((role) => role.stop()));
    await execute(world.newUrl, "drop subscription native");
  }
} finally {
  await world.stop();
}
printReport(
  {
    bench: options.feed === "trigger" ? "mirror" : `mirror-${options.feed}`,
    rounds: ROUNDS,
    results: recorder.results(),
    ratios: {
      vs_native_replication: recorder.median("drained") / recorder.median("native_drained"),
      source_throughput: recorder.median("source") / recorder.median("bare_source"),
      whole_row_source_throughput:
        recorder.median("whole_row_source") / recorder.median("bare_source"),
      native_source_throughput: recorder.median("native_source") / recorder.median("bare_source"),
    },
  },
  options,
);

/** One of the three at a time: what follows nothing of a table still reads the WAL, or polls, on the same cores. */
async function measure(bench: BenchWorld, file: string): Promise<void> {
  const mirror = (does: "pause" | "resume") => crossfade(does, "mirror", "--plan", file);
  const native = (does: "disable" | "enable") =>
    execute(bench.newUrl, `alter subscription native ${does}`);
  await Promise.all([mirror("pause"), native("disable")]);
  recorder.add("bare_source", "writes/s", (await write(bench, "bare", { ms: LOAD_MS })).rate);
  recorder.add("whole_row_source", "writes/s", (await write(bench, "whole", { ms: LOAD_MS })).rate);

  await mirror("resume");
  await untilFollowed(bench, "ours");
  await measureVisible(bench, "ours", "");
  recorder.add("source", "writes/s", (await write(bench, "ours", { ms: LOAD_MS })).rate);
  await untilEqual(bench, "ours");
  await measureHotRow(bench);
  const ours = await drain(
    bench,
    "ours",
    () => mirror("pause"),
    () => mirror("resume"),
  );
  recorder.add("drained", "transactions/s", ours);

  await Promise.all([mirror("pause"), native("enable")]);
  await untilFollowed(bench, "native");
  await measureVisible(bench, "native", "native_");
  recorder.add("native_source", "writes/s", (await write(bench, "native", { ms: LOAD_MS })).rate);
  await untilEqual(bench, "native");
  const theirs = await drain(
    bench,
    "native",
    () => native("disable"),
    () => native("enable"),
  );
  recorder.add("native_drained", "transactions/s", theirs);
}

async function measureVisible(bench: BenchWorld, table: Table, prefix: string): Promise<void> {
  const delays = await visible(bench, table);
  recorder.add(`${prefix}visible_p50`, "ms", percentile(delays, 0.5));
  recorder.add(`${prefix}visible_p99`, "ms", percentile(delays, 0.99));
}

async function measureHotRow(bench: BenchWorld): Promise<void> {
  const before = await passes(bench);
  const hot = await write(bench, "ours", { ms: LOAD_MS / 2, rows: 1 });
  await untilEqual(bench, "ours");
  recorder.add("hot_row", "writes/s", hot.rate);
  const synced = (await passes(bench)) - before;
  recorder.add("hot_row_coalescing", "changes/sync", hot.written / synced);
}

/** Resolves once a write made now has arrived, and with it everything before. */
async function untilFollowed(bench: BenchWorld, table: Table): Promise<void> {
  await write(bench, table, { count: 1 });
  await untilEqual(bench, table);
}

/** Delays from the return of a commit on old until new shows it, ms. */
async function visible(bench: BenchWorld, table: Table): Promise<number[]> {
  const [old, next] = await Promise.all([connect(bench.oldUrl), connect(bench.newUrl)]);
  try {
    const delays: number[] = [];
    const { rows } = await old.query(`select n::int as n from ${table} where id = 1`);
    for (let n = rows[0].n + 1; delays.length < SAMPLES; n += 1) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * (0.5 + Math.random())));
      await old.query({
        name: "write",
        text: `update ${table} set n = $1 where id = 1`,
        values: [n],
      });
      const committed = performance.now();
      while (
        Number(
          (await next.query({ name: "read", text: `select n from ${table} where id = 1` })).rows[0]
            ?.n ?? 0,
        ) < n
      );
      delays.push(performance.now() - committed);
    }
    return delays;
  } finally {
    await Promise.all([old.end(), next.end()]);
  }
}

/** Single-row update transactions by several clients, for a time or a number. */
async function write(
  bench: BenchWorld,
  table: Table,
  until: { ms?: number; count?: number; rows?: number },
): Promise<{ rate: number; written: number }> {
  const started = performance.now();
  let written = 0;
  const client = async (seed: number) => {
    const connection = await connect(bench.oldUrl);
    try {
      for (
        let i = seed;
        until.count === undefined
          ? performance.now() - started < (until.ms ?? 0)
          : written < until.count;
        i += CLIENTS
      ) {
        written += 1;
        await connection.query({
          name: "write",
          text: `update ${table} set n = n + 1 where id = $1`,
          values: [1 + (i % (until.rows ?? ROWS))],
        });
      }
    } finally {
      await connection.end();
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, (_, i) => client(i)));
  return { rate: written / ((performance.now() - started) / 1_000), written };
}

/** Piles up single-row transactions while following is paused, then times how fast they are followed. */
async function drain(
  bench: BenchWorld,
  table: Table,
  pause: () => Promise<unknown>,
  resume: () => Promise<unknown>,
): Promise<number> {
  await pause();
  const { written } = await write(bench, table, { count: BACKLOG });
  const before = await total(bench.newUrl, table);
  const resumed = resume();
  // The clock starts with the first change that arrives: how long a command takes is not what is measured.
  while ((await total(bench.newUrl, table)) === before)
    await new Promise((resolve) => setTimeout(resolve, 2));
  const started = performance.now();
  await untilEqual(bench, table);
  const ms = performance.now() - started;
  await resumed;
  return written / (Math.max(1, ms) / 1_000);
}

/** Passes of the mirror so far: each syncs a row at most once. */
async function passes(bench: BenchWorld): Promise<number> {
  const { rows } = await execute(bench.newUrl, "select pass::int as pass from crossfade.position");
  return rows[0].pass as number;
}

async function untilEqual(bench: BenchWorld, table: Table): Promise<void> {
  const wanted = await total(bench.oldUrl, table);
  while ((await total(bench.newUrl, table)) !== wanted)
    await new Promise((resolve) => setTimeout(resolve, 10));
}

async function total(url: string, table: Table): Promise<string> {
  const { rows } = await execute(url, `select sum(n)::text as n from ${table}`);
  return rows[0].n as string;
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}
