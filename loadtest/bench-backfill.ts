import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import { progress, type TableProgress } from "../store/control/chunk-ledger.ts";
import { closeControlStore, openControlStore } from "../store/control/open.ts";
import { benchOptions, printReport, Recorder } from "./bench.ts";
import { crossfade, startRole, untilReady } from "./cli.ts";
import { type BenchWorld, execute, startBenchWorld } from "./world.ts";

/**
 * Backfill into a table with two secondary indexes between two servers, against the limit: COPY piped into the same
 * indexed table by two streams. Rows of about 150 bytes; a mapping that renames and computes a column.
 */
const options = benchOptions();
const ROWS = options.quick ? 300_000 : 1_000_000;
const ROUNDS = options.quick ? 1 : 3;
const WORKERS = 2;

const OLD = `create table events (id bigint primary key, account int not null, amount numeric not null, note text not null, created timestamptz not null);
  insert into events select n, n % 5000, (n % 100000) / 100.0, md5(n::text) || md5((n + 1)::text) || md5((n + 2)::text), timestamptz '2024-01-01' + n * interval '1 second' from generate_series(1, ${ROWS}) n;
  analyze events`;
const NEW = (
  table: string,
) => `create table ${table} (id bigint primary key, account int not null, cents bigint not null, note text not null, created timestamptz not null);
  create index on ${table} (account); create index on ${table} (created)`;
const RAW_SELECT = "select id, account, (amount * 100)::bigint, note, created from events";

const world = await startBenchWorld();
const recorder = new Recorder();
try {
  await execute(world.oldUrl, OLD);
  for (let round = 0; round < ROUNDS; round += 1) {
    recorder.add("raw COPY, two streams", "rows/s", await rawCopy(world));
    await crossfadeCopy(world, recorder);
  }
} finally {
  await world.stop();
}
printReport(
  {
    bench: "backfill",
    rounds: ROUNDS,
    results: recorder.results(),
    ratios: {
      vs_raw_copy:
        recorder.median(`crossfade, ${WORKERS} workers`) / recorder.median("raw COPY, two streams"),
      verify_vs_copy:
        recorder.median("crossfade verify") / recorder.median(`crossfade, ${WORKERS} workers`),
    },
  },
  options,
);

async function rawCopy(bench: BenchWorld): Promise<number> {
  await execute(bench.newUrl, `drop table if exists raw; ${NEW("raw")}`);
  const started = performance.now();
  await Promise.all(
    [0, 1].map((half) =>
      pipeCopy(bench, `id > ${(ROWS / 2) * half} and id <= ${(ROWS / 2) * (half + 1)}`),
    ),
  );
  return ROWS / ((performance.now() - started) / 1_000);
}

async function pipeCopy(bench: BenchWorld, where: string): Promise<void> {
  const source = new pg.Client({ connectionString: bench.oldUrl });
  const target = new pg.Client({ connectionString: bench.newUrl });
  await Promise.all([source.connect(), target.connect()]);
  try {
    const from = source.query(
      copyTo(`copy (${RAW_SELECT} where ${where}) to stdout (format binary)`),
    );
    await pipeline(from, target.query(copyFrom("copy raw from stdin (format binary)")));
  } finally {
    await Promise.all([source.end(), target.end()]);
  }
}

async function crossfadeCopy(bench: BenchWorld, into: Recorder): Promise<void> {
  await execute(bench.newUrl, `drop table if exists ledger; ${NEW("ledger")}`);
  const { plan, file } = bench.writePlan({
    forward: { ledger: { from: "events", set: { cents: "(amount * 100)::bigint" } } },
    backfill: { workers: WORKERS, chunk: 20_000 },
  });
  const control = startRole("control", file);
  const mirror = startRole("mirror", file);
  const backfill = startRole("backfill", file);
  const store = openControlStore(plan, { role: "bench", instance: "a" });
  try {
    await untilReady(file);
    await crossfade("advance", "--plan", file, "--to", "backfill", "--wait");
    const table = await untilCopied(() => progress(store, "forward"));
    into.add(`crossfade, ${WORKERS} workers`, "rows/s", table.rows / (table.ms / 1_000));
    const started = performance.now();
    await crossfade("verify", "--plan", file);
    into.add("crossfade verify", "rows/s", ROWS / ((performance.now() - started) / 1_000));
    const { rows } = await execute(bench.newUrl, "select count(*)::int as n from ledger");
    if (rows[0].n !== ROWS) throw new Error(`${rows[0].n} of ${ROWS} rows arrived`);
  } finally {
    await Promise.all([mirror.stop(), backfill.stop(), control.stop()]);
    await closeControlStore(store);
  }
  await crossfade("rollback", "--plan", file, "--to", "off");
  await crossfade("clean", "--plan", file, "--yes");
}

async function untilCopied(read: () => Promise<TableProgress[]>): Promise<TableProgress> {
  for (;;) {
    const [table] = await read();
    if (table !== undefined && table.done === table.chunks) return table;
    if ((table?.failed ?? 0) > 0) throw new Error(`a chunk failed: ${table?.error}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
