import { Command, Option } from "commander";
import pg from "pg";
import pino from "pino";
import { SIDES } from "../config/words.ts";
import { Passes } from "../proxy/mirror/pass.ts";
import { type Engine, openEngine } from "../store/postgres/engine.ts";
import { initPosition, installFollowTables } from "../store/postgres/follow-schema.ts";
import { installFeed } from "../store/postgres/install-feed.ts";
import { installSide } from "../store/postgres/install-side.ts";
import { TriggerFeed } from "../store/postgres/trigger-feed.ts";
import { type BenchOptions, median, printReport, Recorder } from "./bench.ts";
import { TimedFeed } from "./log/timed-feed.ts";
import { type BenchWorld, execute, startBenchWorld } from "./world.ts";
import { wholeNumber } from "./whole-number.ts";

/**
 * Whether the log stays small and quick: an hour's worth of changes, one pass after the other, without and with an old snapshot
 * open on both servers. What the app's write takes, beside the same write to a table that nobody follows, what looking into the
 * log, writing on the other side and taking from the log take, and what is on disk: in the first, the middle and the last tenth.
 * `--changes-per-pass 5` is what a mirror takes at once at 500 changes a second, and takes long; with the default all of the rows
 * are there, and few of the passes.
 */
interface LogBenchOptions extends BenchOptions {
  readonly changes: number;
  readonly changesPerPass: number;
  readonly snapshot?: (typeof SNAPSHOTS)[number];
}

const SNAPSHOTS = ["without", "with"] as const;

const options = new Command("bench:log")
  .description("whether the log stays small and quick over an hour's worth of changes")
  .option("--json", "print one JSON document", false)
  .option("--quick", "fewer changes", false)
  .option("--changes <n>", "so many", wholeNumber(100, 1e9))
  .option("--changes-per-pass <n>", "made between two passes", wholeNumber(1, 5_000), 2_000)
  .addOption(
    new Option("--snapshot <which>", "only without, or only with an old snapshot").choices(
      SNAPSHOTS,
    ),
  )
  .parse()
  .opts<Partial<LogBenchOptions> & Omit<LogBenchOptions, "changes">>();
const CHANGES = options.changes ?? (options.quick ? 200_000 : 1_800_000);
const PER_PASS = options.changesPerPass;
/** So many that versions of the app's own rows, which pile up too, are not what is measured. */
const ROWS = 1_000_000;
const TENTHS = 10;
const SHOWN = { begin: 0, middle: 5, end: 9 } as const;

const snapshots = SNAPSHOTS.filter((snapshot) => (options.snapshot ?? snapshot) === snapshot);
const nameOf = (snapshot: string) => `${snapshot} an old snapshot`;
const world = await startBenchWorld();
const recorder = new Recorder();
try {
  for (const snapshot of snapshots) await run(world, nameOf(snapshot), snapshot === "with");
} finally {
  await world.stop();
}
const grown = (name: string) => recorder.median(`${name}, end`) / recorder.median(`${name}, begin`);
printReport(
  {
    bench: "log",
    rounds: 1,
    results: recorder.results(),
    ratios: Object.fromEntries(
      snapshots.flatMap((snapshot) =>
        ["alone", "write", "look", "sync", "take"].map((step) => [
          `${step}_${snapshot}_snapshot`,
          grown(`${nameOf(snapshot)}: ${step}`),
        ]),
      ),
    ),
  },
  options,
);

async function run(bench: BenchWorld, name: string, isHeld: boolean): Promise<void> {
  const engine = await install(bench);
  const [app, ...holders] = await Promise.all([
    connect(bench.oldUrl),
    connect(bench.oldUrl),
    connect(bench.newUrl),
  ]);
  try {
    for (const holder of isHeld ? holders : [])
      await holder.query("begin isolation level repeatable read; select 1");
    const feed = new TimedFeed(new TriggerFeed("old", engine.context.source));
    const passes = new Passes(engine.context, feed, pino({ level: "silent" }));
    await passes.start();
    for (let tenth = 0; tenth < TENTHS; tenth += 1) {
      const took = await measure(app, passes, feed, Math.floor(CHANGES / PER_PASS / TENTHS));
      process.stderr.write(
        `${name}: ${tenth + 1} of ${TENTHS}, ms: ${JSON.stringify(medians(took))}\n`,
      );
      const at = Object.entries(SHOWN).find(([, shown]) => shown === tenth)?.[0];
      if (at !== undefined) await record(bench, took, (what) => `${name}: ${what}, ${at}`);
    }
    while ((await passes.run()) !== undefined);
    await requireEqual(bench);
  } finally {
    await Promise.all([app, ...holders].map((client) => client.end()));
    await engine.close();
  }
}

/** Both sides as after a copy, and the feed on. */
async function install(bench: BenchWorld): Promise<Engine> {
  for (const url of [bench.oldUrl, bench.newUrl])
    await execute(
      url,
      `drop schema if exists crossfade cascade; drop table if exists items, alone;
       create table items (id int primary key, n bigint not null);
       insert into items select i, 0 from generate_series(1, ${ROWS}) i;
       create table alone (like items including indexes); insert into alone table items; analyze items, alone`,
    );
  const { plan } = bench.writePlan({ forward: { items: { from: "items" } } });
  for (const side of SIDES) {
    const client = await connect(plan[side].database);
    await installSide(client, { side, plan: plan.name });
    await installFollowTables(client);
    await client.end();
  }
  const who = { role: "mirror", instance: "bench" };
  const engine = await openEngine({ plan, direction: "forward", epoch: 1, ...who });
  await installFeed(engine.context.source, "old", engine.context.compiled.logged);
  await initPosition(engine.context.target, "forward", 1);
  return engine;
}

async function record(bench: BenchWorld, took: Took, nameOfValue: (what: string) => string) {
  for (const [step, ms] of Object.entries(medians(took))) recorder.add(nameOfValue(step), "ms", ms);
  const sizes = {
    log: await sizeMb(bench.oldUrl, "relname like 'log\\_old%'"),
    "all else on old": await sizeMb(bench.oldUrl, "relname not like 'log\\_old%'"),
    "all on new": await sizeMb(bench.newUrl, "true"),
  };
  for (const [what, mb] of Object.entries(sizes)) recorder.add(nameOfValue(what), "MB", mb);
}

function medians(took: Took): Record<string, number> {
  return Object.fromEntries(
    Object.entries(took).map(([step, values]) => [step, Math.round(median(values) * 100) / 100]),
  );
}

type Took = Readonly<Record<"alone" | "write" | "look" | "sync" | "take", number[]>>;

async function measure(
  app: pg.Client,
  passes: Passes,
  feed: TimedFeed,
  count: number,
): Promise<Took> {
  const took: Took = { alone: [], write: [], look: [], sync: [], take: [] };
  for (let i = 0; i < count; i += 1) {
    const ids = Array.from({ length: PER_PASS }, () => 1 + Math.floor(Math.random() * ROWS));
    took.alone.push(await write(app, "alone", ids));
    took.write.push(await write(app, "items", ids));
    const written = performance.now();
    await passes.run();
    took.look.push(feed.lookMs);
    took.take.push(feed.takeMs);
    took.sync.push(performance.now() - written - feed.lookMs - feed.takeMs);
  }
  return took;
}

/** The app's write; to a table that nobody follows it shows what the server's own tables cost as they grow. */
async function write(app: pg.Client, table: "items" | "alone", ids: number[]): Promise<number> {
  const began = performance.now();
  const text = `update ${table} set n = n + 1 where id = any($1::int[])`;
  await app.query({ name: table, text, values: [ids] });
  return performance.now() - began;
}

async function sizeMb(url: string, which: string): Promise<number> {
  const { rows } = await execute(
    url,
    `select coalesce(sum(pg_total_relation_size(oid)), 0)::float8 / 1e6 as mb from pg_class
     where relnamespace = 'crossfade'::regnamespace and relkind = 'r' and ${which}`,
  );
  return (rows[0] as { mb: number }).mb;
}

async function requireEqual(bench: BenchWorld): Promise<void> {
  const sql = "select md5(string_agg(id || ' ' || n, ',' order by id)) from items";
  const [old, next] = [await execute(bench.oldUrl, sql), await execute(bench.newUrl, sql)];
  if (JSON.stringify(old.rows) !== JSON.stringify(next.rows))
    throw new Error(`the sides differ: ${JSON.stringify([old.rows, next.rows])}`);
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}
