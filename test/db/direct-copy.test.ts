import { describe, expect, onTestFinished, test } from "vitest";
import type { MappingPlan } from "../../config/plan-types.ts";
import { run } from "../../store/postgres/statement.ts";
import type { CopyPace } from "../../store/postgres/stretch.ts";
import { type ChunkResult, syncChunk } from "../../store/postgres/sync-chunk.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

const OLD = `
  create type mood as enum ('calm', 'loud');
  create table items (id int primary key, name text, price numeric(12,2), weight float8, code varchar(8), mood mood, seen timestamptz, at timestamp);
  insert into items select i, 'Item ' || i, i * 1.25, i / 3.0, 'c' || i, case i % 3 when 0 then 'calm' when 1 then 'loud' end::mood,
    timestamptz '2024-01-01' + i * interval '1 hour', timestamp '2024-01-01 00:00:00.5' + i * interval '1 minute' from generate_series(1, 500) i;
  insert into items (id) values (-1);`;
const TYPES = "create type mood as enum ('calm', 'loud');";

async function open(old: string, next: string, forward: MappingPlan): Promise<SyncWorld> {
  const urls = await createDatabasePair();
  await withClient(urls.oldUrl, (client) => client.query(old));
  await withClient(urls.newUrl, (client) => client.query(next));
  const world = await SyncWorld.open({ ...urls, feed: "trigger", forward: [forward] });
  onTestFinished(() => world.close());
  return world;
}

/** Copies the whole table as one chunk. */
async function copy(world: SyncWorld, pace?: CopyPace): Promise<ChunkResult> {
  const { context } = world.engine;
  const [driver] = context.compiled.drivers;
  if (driver === undefined) throw new Error("nothing is mapped");
  return syncChunk(context, driver, { n: 0, version: 0, lo: null, hi: null }, pace);
}

/** Whether rows went through a table of the copying session. */
async function wasStaged(world: SyncWorld): Promise<boolean> {
  const [row] = await run(
    world.engine.context.target,
    "select count(*)::text from pg_class where relnamespace = pg_my_temp_schema() and relname like 'cf_stage%'",
  );
  return row?.[0] !== "0";
}

const rows = (world: SyncWorld, side: "old" | "new", sql: string) => run(world[side], sql);

describe("rows go straight into the target", () => {
  test("carried columns, also renamed, of types of the user's own; generated, identity and partitioned targets", async () => {
    const world = await open(
      OLD,
      `${TYPES} create table items (id int generated always as identity primary key, title text, price numeric(12,2), code varchar(8), mood mood,
         seen timestamptz, twice numeric generated always as (price * 2) stored, added text default 'by default') partition by range (id);
       create table low partition of items for values from (minvalue) to (250); create table high partition of items for values from (250) to (maxvalue)`,
      mapping("items", "items", { set: new Map([["title", "name"]]) }),
    );
    expect(await copy(world)).toMatchObject({ rows: 501, refused: 0 });
    expect(await wasStaged(world)).toBe(false);
    expect(
      await rows(
        world,
        "new",
        "select id, title, price, code, mood, seen, twice, added from items order by id",
      ),
    ).toEqual(
      await rows(
        world,
        "old",
        "select id, name, price, code, mood, seen, price * 2, 'by default' from items order by id",
      ),
    );
  });

  test.for([
    ["cents bigint", "(price * 100)::bigint"],
    ["cents bigint", "coalesce(items.price, 0) * 100"],
    ["cents numeric(6,1)", "price / 3"],
    ["cents int", "case when price > 100 and id % 2 = 0 then round(price)::int else -id end"],
    ["cents timestamp(0)", "items.at"],
    ["cents boolean", "price is null or not (price between 10 and 20)"],
    ["cents numeric", "greatest(price, nullif(id, 7), sqrt(abs(price)))"],
  ])("computed: %s = %s", async ([column = "", expression = ""]) => {
    const world = await open(
      OLD,
      `${TYPES} create table items (id int primary key, ${column})`,
      mapping("items", "items", { set: new Map([["cents", expression]]) }),
    );
    expect((await copy(world)).rows).toBe(501);
    expect(await wasStaged(world)).toBe(false);
    const type = column.replace("cents ", "");
    const expected = `select id, (${expression})::${type} from items order by id`;
    expect(await rows(world, "new", "select id, cents from items order by id")).toEqual(
      await rows(world, "old", expected),
    );
  });

  test("a length of characters is kept, padded or refused as an insert would", async () => {
    const world = await open(
      `${OLD} alter table items add country char(2), add flag char(3); update items set country = 'ch', flag = 'a' where id > 0; update items set flag = 'abc' where id = 7`,
      `create table items (id int primary key, country char(4), flag char(2))`,
      mapping("items", "items"),
    );
    const { context } = world.engine;
    const [driver] = context.compiled.drivers;
    if (driver === undefined) throw new Error("nothing is mapped");
    // The row of three letters is in another chunk.
    expect(
      await syncChunk(context, driver, { n: 0, version: 0, lo: ["8"], hi: null }),
    ).toMatchObject({
      rows: 493,
      refused: 0,
    });
    expect(await wasStaged(world)).toBe(false);
    expect(await rows(world, "new", "select country, flag from items where id = 8")).toEqual([
      ["ch  ", "a "],
    ]);
    expect(await copy(world)).toMatchObject({ rows: 501, refused: 1 });
    expect(await rows(world, "new", "select count(*)::text from items where id = 7")).toEqual([
      ["0"],
    ]);
  });

  test("what the old side's schema calls `*` changes nothing", async () => {
    const world = await open(
      `${OLD} create function wrong(numeric, int) returns numeric language sql immutable as 'select -1::numeric';
       create operator * (leftarg = numeric, rightarg = int, function = wrong)`,
      "create table items (id int primary key, cents numeric)",
      mapping("items", "items", { set: new Map([["cents", "price * 100"]]) }),
    );
    await copy(world);
    expect(await wasStaged(world)).toBe(false);
    expect(await rows(world, "new", "select cents from items where id = 4")).toEqual([["500.00"]]);
  });
});

describe("rows are staged", () => {
  test.for([
    ["out text", "lower(name)"],
    ["out float8", "weight * 2"],
    ["out numeric", "(price::float8 / 3)::numeric"],
    ["out timestamptz", "now()"],
    ["out date", "seen::date"],
    ["out bigint", "(select count(*) from words where id < items.id)"],
    ["out int", "own_length(code)"],
    ["out int", "price @+ 1"],
    ["out varchar(20)", "name"],
    ["out text", "case mood when 'calm' then 'a' else 'b' end"],
  ])(
    "where only the new side can say what it means: %s = %s",
    async ([column = "", expression = ""]) => {
      const world = await open(
        OLD,
        `${TYPES} create table words (id int); insert into words values (3), (100);
       create function own_length(text) returns int language sql immutable as 'select length($1)';
       create function plus(numeric, int) returns int language sql immutable as 'select ($1 + $2)::int';
       create operator @+ (leftarg = numeric, rightarg = int, function = plus);
       create table items (id int primary key, ${column})`,
        mapping("items", "items", { set: new Map([["out", expression]]) }),
      );
      expect((await copy(world)).rows).toBe(501);
      expect(await wasStaged(world)).toBe(true);
      expect(await rows(world, "new", "select count(*)::text from items")).toEqual([["501"]]);
    },
  );

  test.for([
    ["a rule", "create rule r as on insert to items where new.id = 7 do instead nothing"],
    [
      "row security",
      "alter table items enable row level security; alter table items force row level security",
    ],
  ])("a target with %s", async ([, ddl = ""]) => {
    const world = await open(
      OLD,
      `create table items (id int primary key, name text); ${ddl}`,
      mapping("items", "items"),
    );
    await copy(world);
    // A superuser passes row security by.
    expect(await wasStaged(world)).toBe(!ddl.includes("security"));
  });

  test.for([
    ["a domain", "create domain amount as bigint", "create domain amount as float8", "12"],
    [
      "an array of a domain",
      "create domain amounts as bigint; create type amount as (of amounts[])",
      "create domain amounts as float8; create type amount as (of amounts[])",
      "row(array[12]::amounts[])::amount",
    ],
    [
      "a range",
      "create type amount as range (subtype = int8)",
      "create type amount as range (subtype = float8)",
      "amount(12, 13)",
    ],
  ])(
    "%s of one name that is made of something else on each side",
    async ([, old = "", next = "", value = ""]) => {
      const table = "create table items (id int primary key, amount amount)";
      const world = await open(
        `${old}; ${table}; insert into items values (1, ${value})`,
        `${next}; ${table}`,
        mapping("items", "items"),
      );
      expect(await copy(world)).toMatchObject({ rows: 1, refused: 0 });
      const all = "select amount::text from items";
      expect(await rows(world, "new", all)).toEqual(await rows(world, "old", all));
    },
  );

  test("what is a number of an object of its server, or has no form as bytes", async () => {
    const table =
      "create table items (id int primary key, ref regclass, refs regtype[], acl aclitem)";
    const world = await open(
      `${table}; insert into items values (1, 'items', '{items,int}', 'postgres=r/postgres')`,
      // The same names, other numbers.
      `create table before (id int); ${table}`,
      mapping("items", "items"),
    );
    expect(await copy(world)).toMatchObject({ rows: 1, refused: 0 });
    const all = "select ref::text, refs::text, acl::text from items";
    expect(await rows(world, "new", all)).toEqual(await rows(world, "old", all));
  });

  test.for([1, 150, 500])("row %i is there already, in an older state", async (id) => {
    const world = await open(
      OLD,
      `create table items (id int primary key, name text); insert into items values (${id}, 'older')`,
      mapping("items", "items"),
    );
    expect((await copy(world)).rows).toBe(501);
    expect(await wasStaged(world)).toBe(true);
    const all = "select id, name from items order by id";
    expect(await rows(world, "new", all)).toEqual(await rows(world, "old", all));
    // A second copy of everything changes nothing.
    await copy(world);
    expect(await rows(world, "new", all)).toEqual(await rows(world, "old", all));
  });
});

test("what the target refuses is quarantined, the rest arrives, and the sessions go on", async () => {
  const world = await open(
    OLD,
    "create table items (id int primary key, price numeric check (price <> 50), name text unique)",
    mapping("items", "items"),
  );
  expect(await copy(world)).toMatchObject({ rows: 501, refused: 1 });
  expect(await rows(world, "new", "select count(*)::text from items")).toEqual([["500"]]);
  await world.old.query("update items set price = 51 where price = 50");
  await world.drain();
  const all = "select id, price, name from items order by id";
  expect(await rows(world, "new", all)).toEqual(await rows(world, "old", all));
});

describe("a stretched copy", () => {
  const many = (rows: number) => `create table items (id int primary key, note text);
    insert into items select i, repeat('n', 2000) from generate_series(1, ${rows}) i`;
  const TARGET = "create table items (id int primary key, note text)";
  /** A tenth of a second for every 64 KB, and no more in all than that three times. */
  const PACE = { restPerByte: 100 / 65_536, mostMs: 300 };

  test("brings every row, says what it rested, and rests no longer than it may", async () => {
    const world = await open(many(5_000), TARGET, mapping("items", "items"));
    const { rows: found, direct } = await copy(world, PACE);
    expect(found).toBe(5_000);
    expect(direct.bytes).toBeGreaterThan(10_000_000);
    // By the bytes it would be fifteen seconds.
    expect(direct.restedMs).toBeGreaterThan(250);
    expect(direct.restedMs).toBeLessThan(7_500);
    const all = "select md5(string_agg(id || note, '|' order by id)) from items";
    expect(await rows(world, "new", all)).toEqual(await rows(world, "old", all));
  });

  test.for(["source", "target"] as const)(
    "the session of the %s ends while it rests: the error comes, nothing hangs or is half done",
    async (side) => {
      // More than connections hold: both sessions are at it until the end.
      const world = await open(many(8_000), TARGET, mapping("items", "items"));
      const { processID } = world.engine.context[side] as unknown as { processID: number };
      const copied = copy(world, { restPerByte: 20 / 65_536, mostMs: 60_000 });
      copied.catch(() => {});
      const db = side === "source" ? world.old : world.new;
      const isCopying = `select count(*)::text from pg_stat_progress_copy where pid = ${processID}`;
      await expect.poll(() => run(db, isCopying), { interval: 5 }).toEqual([["1"]]);
      await run(db, `select pg_terminate_backend(${processID})`);
      await expect(copied).rejects.toThrow(/terminat/);
      expect(await rows(world, "new", "select count(*)::text from items")).toEqual([["0"]]);
    },
  );

  test("a row that the target refuses while it rests: both sessions go on", async () => {
    const world = await open(
      many(1_000),
      "create table items (id int primary key check (id <> 600), note text)",
      mapping("items", "items"),
    );
    expect(await copy(world, PACE)).toMatchObject({ rows: 1_000, refused: 1 });
    expect(await rows(world, "new", "select count(*)::text from items")).toEqual([["999"]]);
  });
});

test("a source that takes long to say which rows there are does not cost the target's transaction", async () => {
  const world = await open(
    OLD,
    `${TYPES} create table items (id int primary key, name text)`,
    mapping("items", "items"),
  );
  const { target, source } = world.engine.context;
  // The session of the target ends when nothing is said for so long.
  await target.query("set idle_in_transaction_session_timeout = 2500");
  await source.query("set lock_timeout = 0");
  await world.old.query("begin; lock table items in access exclusive mode");
  const copied = copy(world);
  const pid = (target as unknown as { processID: number }).processID;
  await expect
    .poll(
      async () => {
        const [row] = await run(
          world.new,
          "select coalesce(clock_timestamp() - xact_start > interval '3 s', false)::text from pg_stat_activity where pid = $1",
          [pid],
        );
        return row?.[0] ?? "ended";
      },
      { timeout: 20_000 },
    )
    .toBe("true");
  await world.old.query("commit");
  expect((await copied).rows).toBe(501);
  expect(await wasStaged(world)).toBe(false);
});
