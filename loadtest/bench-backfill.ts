import { measureApp } from "./backfill/app-latency.ts";
import { printReport, Recorder } from "./bench.ts";
import { backfillOptions } from "./backfill/options.ts";
import { startInstalledPostgres } from "./backfill/installed-postgres.ts";
import { contest } from "./backfill/contest.ts";
import { copyWithProduct } from "./backfill/product.ts";
import { emptyTable, installedTools, rawCopy } from "./backfill/references.ts";
import { MAPPED, newTable, oldTable } from "./backfill/table.ts";
import { type BenchWorld, execute, startBenchWorld } from "./world.ts";

/**
 * Backfill into a table with two secondary indexes between two servers, against the limit (COPY piped into the same indexed
 * table), against tools that copy whole databases and build the indexes afterwards, and in one database against `insert …
 * select`. The mapping renames the table and computes a column. Then what an app behind the sidecar notices of a throttled copy.
 * `--part contest | app` runs one of the two; `--rows N` copies 1 M rows and N with us alone, to see what grows. `--bin DIR`
 * measures on an installed Postgres, so that its pg_dump fits.
 */
const options = backfillOptions();
const { bin } = options;
const ROWS = options.quick ? 300_000 : 3_000_000;
const ROUNDS = options.quick ? 1 : 3;
/** A copy that is to last through all of its measurements, however fast. */
const APP_ROWS = 15_000_000;
const APP_SECONDS = 15;
const SMALL = 1_000_000;

const world = await startBenchWorld(
  bin === undefined ? undefined : () => startInstalledPostgres(bin),
);
const recorder = new Recorder();
try {
  if (options.rows !== undefined) await bySize(options.rows);
  else {
    if (options.part !== "app") await contests();
    if (options.part === "app" || (options.part === undefined && !options.quick)) await app();
  }
} finally {
  await world.stop();
}

/** The same copy of few rows and of many: what a row costs, and the memory it takes. */
async function bySize(many: number): Promise<void> {
  for (const rows of [SMALL, many]) {
    await fillOld(rows);
    await emptyTable(world, "raw");
    await contest(recorder, `raw COPY, ${rows / 1e6} M rows`, rows, () => rawCopy(world, rows, 2));
    await execute(world.newUrl, "drop table raw");
    await emptyTable(world, "ledger");
    const name = `crossfade, ${rows / 1e6} M rows`;
    await copyWithProduct(world, recorder, { name, rows, workers: 2, verify: true });
  }
}

/** As a table is that has been in use: what the server has still to do for a new one would be measured with the copy. */
async function fillOld(rows: number): Promise<void> {
  await execute(world.oldUrl, `drop table if exists events; ${oldTable(rows)}`);
  await execute(world.oldUrl, "vacuum (freeze, analyze) events");
  await execute(world.oldUrl, "checkpoint");
}

async function app(): Promise<void> {
  await fillOld(APP_ROWS);
  await measureApp(world, recorder, { rows: APP_ROWS, rounds: ROUNDS, seconds: APP_SECONDS });
}

async function contests(): Promise<void> {
  await fillOld(ROWS);
  const tools = await installedTools(world);
  for (const tool of tools)
    if (tool.missing !== undefined) process.stderr.write(`without ${tool.name}: ${tool.missing}\n`);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const streams of options.quick ? [2] : [1, 2]) {
      await emptyTable(world, "raw");
      await contest(recorder, `raw COPY, ${streams} streams`, ROWS, () =>
        rawCopy(world, ROWS, streams),
      );
    }
    await execute(world.newUrl, "drop table raw");
    for (const workers of options.quick ? [2] : [1, 2]) {
      await emptyTable(world, "ledger");
      await copyWithProduct(world, recorder, {
        name: `crossfade, ${workers} workers`,
        rows: ROWS,
        workers,
        verify: workers === 2,
      });
    }
    await emptyTable(world, "ledger");
    await copyWithProduct(world, recorder, {
      name: "crossfade, 2 workers, indexes deferred",
      rows: ROWS,
      workers: 2,
      verify: false,
      defer: true,
    });
    if (options.quick) continue;
    for (const tool of tools) {
      if (tool.missing !== undefined) continue;
      const target = await world.new.createDatabase(`tool_${round}_${tools.indexOf(tool)}`);
      await contest(recorder, tool.name, ROWS, () => tool.run(target));
    }
    await inOneDatabase(world, recorder);
  }
}

async function inOneDatabase(bench: BenchWorld, into: Recorder): Promise<void> {
  await execute(bench.oldUrl, newTable("raw"));
  await contest(into, "one database: insert … select", ROWS, async () => {
    await execute(bench.oldUrl, `insert into raw ${MAPPED}`);
  });
  await execute(
    bench.oldUrl,
    `drop table raw; create schema if not exists next; ${newTable("next.ledger")}`,
  );
  await copyWithProduct(bench, into, {
    name: "one database: crossfade, 2 workers",
    rows: ROWS,
    workers: 2,
    verify: false,
    inSchema: "next",
  });
  await execute(bench.oldUrl, "drop schema next cascade");
}

const ours = "crossfade, 2 workers";
const compare = (name: string, than: string): [] | [number] => {
  const ratio = recorder.median(name) / recorder.median(than);
  return Number.isNaN(ratio) ? [] : [ratio];
};
/** Many rows beside few. */
function bySizeRatios(): Record<string, [] | [number]> {
  if (options.rows === undefined) return {};
  const [many, few] = [options.rows, SMALL].map((rows) => `crossfade, ${rows / 1e6} M rows`);
  return {
    raw_copy_cpu_per_row: compare(
      `raw COPY, ${options.rows / 1e6} M rows: CPU`,
      `raw COPY, ${SMALL / 1e6} M rows: CPU`,
    ),
    cpu_per_row: compare(`${many}: CPU`, `${few}: CPU`),
    verify_cpu_per_row: compare(`${many}: verify: CPU`, `${few}: verify: CPU`),
    memory: compare(`${many}: memory of the process`, `${few}: memory of the process`),
  };
}

const ratios = {
  vs_raw_copy: compare(ours, "raw COPY, 2 streams"),
  verify_vs_copy: compare(`${ours}: verify`, ours),
  cpu_vs_raw_copy: compare(`${ours}: CPU`, "raw COPY, 2 streams: CPU"),
  vs_pgcopydb: compare(ours, "pgcopydb"),
  vs_pg_dump: compare(ours, "pg_dump | pg_restore"),
  deferred_vs_raw_copy: compare(`${ours}, indexes deferred`, "raw COPY, 2 streams"),
  vs_insert_select: compare("one database: crossfade, 2 workers", "one database: insert … select"),
  app_read_p99: compare("app: read p99 during backfill", "app: read p99 without backfill"),
  app_write_p99: compare("app: write p99 during backfill", "app: write p99 without backfill"),
  ...bySizeRatios(),
};
printReport(
  {
    bench: "backfill",
    rounds: options.rows === undefined ? ROUNDS : 1,
    results: recorder.results(),
    ratios: Object.fromEntries(
      Object.entries(ratios).flatMap(([name, [ratio]]) =>
        ratio === undefined ? [] : [[name, ratio]],
      ),
    ),
  },
  options,
);
