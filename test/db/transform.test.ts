import { afterEach, expect, test } from "vitest";
import { runVerify } from "../../backfill/verify.ts";
import { validatePlan } from "../../cli/validate.ts";
import { PlanError } from "../../config/errors.ts";
import type { MappingPlan } from "../../config/plan-types.ts";
import { install } from "../../store/control/schema.ts";
import { compareChunk } from "../../store/postgres/compare.ts";
import { listQuarantine } from "../../store/postgres/quarantine.ts";
import { syncChunk } from "../../store/postgres/sync-chunk.ts";
import { openTestStore, silentLog } from "../support/control.ts";
import {
  createDatabasePair,
  createSingleDatabase,
  type DatabasePair,
  withClient,
} from "../support/databases.ts";
import { MAPPING_CASES, transformFile } from "../support/mapping-cases.ts";
import { mapping, SyncWorld, testPlan, mirrorBeside } from "../support/sync-world.ts";
import { testedFeed } from "../support/tested-feed.ts";

const worlds: SyncWorld[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close();
});

const everything = { n: 0, version: 0, lo: null, hi: null };
const OLD = "create table texts (id bigint primary key, words text)";
const NEW = `create table words (source bigint, n int, word text not null check (word <> 'refused'), primary key (source, n));
  create table copies (id bigint primary key, words text)`;
const words = (rest: Partial<MappingPlan> = {}): MappingPlan =>
  mapping("words", "texts", {
    own: new Map([["source", "id"]]),
    transform: transformFile("troubled.ts"),
    ...rest,
  });

async function tables(): Promise<DatabasePair> {
  const urls = await createDatabasePair();
  await withClient(urls.oldUrl, (client) => client.query(OLD));
  await withClient(urls.newUrl, (client) => client.query(NEW));
  return urls;
}

async function rowsOf(client: SyncWorld["new"], sql: string): Promise<unknown[]> {
  return (await client.query({ text: sql, rowMode: "array" })).rows;
}

test("copied, mirrored, compared and repaired; what a module rejects or fails on waits in quarantine beside a table that goes on", async () => {
  const urls = await tables();
  // More than one group of keys, and trouble in the middle of them.
  await withClient(urls.oldUrl, (client) =>
    client.query(`insert into texts select n, 'a' || n || ',b' from generate_series(1, 620) n;
      update texts set words = w from (values (600, 'reject'), (601, 'throw'), (602, 'zero'), (603, 'refused')) t(i, w) where id = i`),
  );
  const forward = [mapping("copies", "texts"), words()];
  const world = await SyncWorld.open({ ...urls, forward });
  worlds.push(world);
  const { context } = world.engine;
  const [driver] = context.compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  const entries = async () =>
    (await listQuarantine(context.target, "forward")).map(
      ({ key, mapping: path, reason, state }) => [key.join(), path, reason, state],
    );
  const stays = async (id: number) =>
    rowsOf(world.new, `select n, word from words where source = ${id} order by 1`);

  expect(await syncChunk(context, driver, everything)).toMatchObject({ rows: 620, refused: 4 });
  expect(await rowsOf(world.new, "select count(*) from copies")).toEqual([["620"]]);
  expect(await rowsOf(world.new, "select count(*), count(distinct source) from words")).toEqual([
    ["1232", "616"],
  ]);
  expect(await entries()).toEqual([
    ["600", "test.words", "not wanted", "quarantined"],
    [
      "601",
      "test.words",
      "the transform troubled.ts threw: no idea what to do with throw",
      "quarantined",
    ],
    ["602", "test.words", expect.stringContaining("a zero character"), "quarantined"],
    ["603", "test.words", expect.stringContaining("check constraint"), "quarantined"],
  ]);

  // Fewer rows, more, none; a key that moves; trouble leaves what stood there; what is well again goes through.
  await world.old
    .query(`update texts set words = 'x' where id = 1; update texts set words = 'x,y,z' where id = 2;
    update texts set words = null where id = 3; delete from texts where id = 4; update texts set id = 9007199254740993 where id = 5;
    update texts set words = 'half' where id = 6; update texts set words = 'number' where id = 7;
    update texts set words = 'well' where id in (600, 601, 602, 603)`);
  await world.drain();
  const pair = (id: number) => [
    ["0", `a${id}`],
    ["1", "b"],
  ];
  expect(await stays(1)).toEqual([["0", "x"]]);
  expect(await stays(2)).toEqual([
    ["0", "x"],
    ["1", "y"],
    ["2", "z"],
  ]);
  for (const gone of [3, 4, 5]) expect(await stays(gone)).toEqual([]);
  expect(await rowsOf(world.new, "select word from words where source = 9007199254740993")).toEqual(
    [["a5"], ["b"]],
  );
  for (const left of [6, 7]) expect(await stays(left)).toEqual(pair(left));
  for (const healed of [600, 601, 602, 603]) expect(await stays(healed)).toEqual([["0", "well"]]);
  expect(new Set((await entries()).map(([key]) => key))).toEqual(new Set(["6", "7"]));

  // A module that fails proves nothing, so its key is never called equal.
  const compared = await compareChunk(context, driver, everything, () => true);
  expect(
    new Set(compared.differences.map(({ mapping: path, key }) => `${path} ${key.join()}`)),
  ).toEqual(new Set(["test.words 6", "test.words 7"]));
  await world.old.query("update texts set words = 'well' where id in (6, 7)");
  await world.drain();
  expect(await entries()).toEqual([]);

  const store = openTestStore(urls.oldUrl, { plan: "test" });
  await install(store);
  const stopMirror = mirrorBeside(world);
  try {
    const verify = (repair: boolean) =>
      runVerify({
        plan: world.plan,
        store,
        log: silentLog,
        direction: "forward",
        epoch: 1,
        by: "test",
        repair,
      });
    const rows = Number((await rowsOf(world.new, "select count(*) from words")).flat()[0]) + 619;
    await world.new
      .query(`set session_replication_role = replica; delete from words where source = 8 and n = 1;
      update words set word = 'wrong' where source = 9 and n = 0; insert into words values (10, 2, 'extra'), (4, 0, 'orphan')`);
    expect(await verify(false)).toMatchObject({ missing: 1, different: 1, extra: 2 });
    expect(await verify(true)).toMatchObject({ state: "clean", repaired: 4, rows });
  } finally {
    await stopMirror();
  }
});

test.skipIf(testedFeed() === "wal")("both sides in one database: there and back", async () => {
  const url = await createSingleDatabase();
  const kind = MAPPING_CASES.find(({ name }) => name.startsWith("transform"));
  if (kind === undefined) throw new Error("no such case");
  await withClient(url, (client) =>
    client.query(`${kind.old}; create schema next; set search_path = next; ${kind.new}`),
  );
  const { forward, reverse } = kind;
  const options = { oldUrl: url, newUrl: url, newSchema: "next", forward, reverse };
  const there = await SyncWorld.open(options);
  worlds.push(there);
  for (const write of kind.writes) {
    await there.old.query(write);
    await there.drain();
  }
  await there.new.query("set search_path = next");
  expect(await rowsOf(there.new, kind.arrives[0])).toEqual(kind.arrives[1]);
  const before = await rowsOf(there.old, kind.returns[0]);
  worlds.splice(0);
  await there.close();

  const back = await SyncWorld.open(options, "reverse");
  worlds.push(back);
  const { context } = back.engine;
  await back.old.query("update baskets set items = 'wrong'; insert into baskets values (9)");
  for (const driver of context.compiled.drivers) await syncChunk(context, driver, everything);
  expect(await rowsOf(back.old, kind.returns[0])).toEqual([...before, ["9", null, null]]);
  await back.old.query("delete from baskets where id = 9");
  await back.new.query("set search_path = next");
  await back.new.query(kind.back);
  await back.drain();
  expect(await rowsOf(back.old, kind.returns[0])).toEqual(kind.returns[1]);
  for (const driver of context.compiled.drivers)
    expect((await compareChunk(context, driver, everything, () => true)).differences).toEqual([]);
});

test.skipIf(testedFeed() === "wal")(
  "what cannot work is refused with its path and reason, all at once",
  async () => {
    const urls = await tables();
    const at = (n: number, rest: Partial<MappingPlan>) =>
      words({ path: `forward.words[${n}]`, ...rest });
    const plan = testPlan({
      ...urls,
      forward: [
        at(0, { transform: transformFile("missing.ts") }),
        at(1, { transform: transformFile("async.ts") }),
        at(2, { transform: transformFile("strange-columns.ts") }),
        at(3, { own: undefined }),
        at(4, { own: new Map([["source", "words"]]) }),
        at(5, { own: new Map([["source", "id::text::xml"]]) }),
        at(6, { own: new Map([["nobody", "id"]]) }),
      ],
    });
    const error = await validatePlan(plan).catch((reason: unknown) => reason);
    if (!(error instanceof PlanError)) throw error;
    const message = (text: string) => expect.stringContaining(text) as string;
    expect(error.issues).toEqual([
      { path: "forward.words[0].transform", message: message("found no file /") },
      { path: "forward.words[1].transform", message: message("async function") },
      {
        path: "forward.words[2].transform",
        message: message(
          "makes nonsense, source; of words it can make n, word, and `own` gives source",
        ),
      },
      { path: "forward.words[2].transform", message: message("words.n must have a value") },
      { path: "forward.words[3]", message: message("needs `own`: source") },
      { path: "forward.words[3]", message: message("needs `own`: n") },
      { path: "forward.words[4].own.source", message: message("must be SQL over the key (id)") },
      { path: "forward.words[5].own.source", message: message("cannot cast type xml to bigint") },
      { path: "forward.words[6].own.nobody", message: message("has no column nobody") },
    ]);
  },
);
