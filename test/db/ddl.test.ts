import { expect, onTestFinished, test } from "vitest";
import { openEngine } from "../../store/postgres/engine.ts";
import { forgetShapes } from "../../store/postgres/shape-watch.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";
import { testedFeed } from "../support/tested-feed.ts";

const OLD = `create table items (id int primary key, name text not null, price int not null, note text);
  create table parts (id int, region text, primary key (region, id)) partition by list (region);
  create table parts_eu partition of parts for values in ('eu');
  insert into items select n, 'name ' || n, n, 'note' from generate_series(1, 20) n;
  insert into parts values (1, 'eu')`;
const NEW = `create table items (id int primary key, title text not null, price bigint not null);
  create table parts (id int, region text, primary key (region, id));
  create function keep() returns trigger language plpgsql as 'begin return new; end'`;

async function open(): Promise<SyncWorld> {
  const { oldUrl, newUrl } = await createDatabasePair();
  await withClient(oldUrl, (client) => client.query(OLD));
  await withClient(newUrl, (client) => client.query(NEW));
  const forward = [
    mapping("items", "items", { set: new Map([["title", "name"]]) }),
    mapping("parts", "parts"),
  ];
  const world = await SyncWorld.open({ oldUrl, newUrl, forward });
  onTestFinished(() => world.close());
  return world;
}

const titles = async (world: SyncWorld) =>
  (await world.new.query("select id::text, title, price::text from items order by id")).rows;

const FEED_CASES = {
  trigger: [
    ["old", "drop trigger crossfade_log on items", "trigger crossfade_log on items was dropped"],
    ["old", "alter table items disable trigger all", "trigger crossfade_log on items was disabled"],
  ],
  wal: [
    [
      "old",
      "alter publication crossfade_old drop table items",
      "publication crossfade_old on items was dropped",
    ],
    [
      "old",
      "create unique index other on items (id); alter table items replica identity using index other",
      "the replica identity of items was changed",
    ],
    [
      "old",
      "alter table parts_eu disable trigger all",
      "trigger crossfade_log_truncate on parts_eu was disabled",
    ],
  ],
};

test.each([
  ["old", "alter table items alter price type bigint", "column price was integer and is bigint"],
  ["old", "alter table items alter price type int using price * 2", "column price was rewritten"],
  ["old", "alter table items drop note", "column note was dropped"],
  ["old", "alter table items add extra text", "column extra was added"],
  ["old", "alter table items rename note to remark", "column note is now remark"],
  [
    "old",
    "alter table items drop note; alter table items add note text",
    "column note was dropped, column note was added",
  ],
  [
    "old",
    "alter table items drop constraint items_pkey, add primary key (id, name)",
    "its key was (id) and is (id, name)",
  ],
  ["old", "alter table items rename to things", "it is not there any more"],
  [
    "old",
    "create table copy (like items including all); drop table items; alter table copy rename to items",
    "it was dropped and made anew",
  ],
  [
    "old",
    "create table parts_us partition of parts for values in ('us')",
    "partition parts_us was added",
  ],
  ...FEED_CASES[testedFeed()],
  [
    "new",
    "alter table items alter title type varchar(3) using left(title, 3)",
    "column title was text and is character varying(3)",
  ],
  [
    "new",
    "alter table items drop price; alter table items add price bigint",
    "column price was dropped, column price was added",
  ],
])("%s: after `%s` nothing is committed: %s", async (side, ddl, what) => {
  const world = await open();
  await world.old.query("update items set name = 'changed' where id = 1");
  await world.drain();
  const before = await world.new.query("select count(*)::text, max(title) from items");
  const position = "select pass::text, read::text from crossfade.position";
  const at = (await world.new.query(position)).rows;
  // What is in the log was written under the shape that was.
  await world.old.query("update items set name = 'more' where id = 2");
  await world[side as "old" | "new"].query(ddl);
  await expect(world.drain()).rejects.toThrow();
  await expect(world.engine.context.shapes.check()).rejects.toMatchObject({
    code: "SHAPE_CHANGED",
    message: expect.stringContaining(what) as string,
  });
  expect((await world.new.query(position)).rows).toEqual(at);
  expect((await world.new.query("select count(*)::text from items")).rows).toEqual([
    { count: before.rows[0]?.count },
  ]);
});

test("a fence alone does not pass after DDL: what was written since may not have been seen", async () => {
  const world = await open();
  await world.old.query("update items set name = 'changed' where id = 1");
  await world.drain();
  const position = "select pass::text, fence::text from crossfade.position";
  const at = (await world.new.query(position)).rows;
  await world.old.query("alter table items add extra text");
  await world.feed.writeFence();
  await expect(world.drain()).rejects.toMatchObject({ code: "SHAPE_CHANGED" });
  expect((await world.new.query(position)).rows).toEqual(at);
});

test("a session that slept through DDL and a resume writes nothing: its mappings are those of before", async () => {
  const world = await open();
  await world.old.query("update items set name = 'changed' where id = 1");
  await world.drain();
  for (const side of ["old", "new"] as const) {
    await world[side].query("alter table items add extra text");
    await forgetShapes(world[side], side);
  }
  await world.old.query("update items set name = 'more', extra = 'extra' where id = 1");
  // While the resume is under way, and after it.
  await expect(world.drain()).rejects.toMatchObject({ code: "STALE" });
  const { plan } = world;
  const next = await openEngine({
    plan,
    direction: "forward",
    epoch: 1,
    role: "next",
    instance: "b",
  });
  onTestFinished(() => next.close());
  await expect(world.drain()).rejects.toMatchObject({ code: "STALE" });
  expect(await titles(world)).toEqual([{ id: "1", title: "changed", price: "1" }]);
  await next.context.shapes.check();
});

test("what changes no row stops nothing, however it rewrites the table", async () => {
  const world = await open();
  for (const [side, harmless] of [
    ["old", "create index on items (name)"],
    ["old", "create unique index on items (id, price)"],
    ["old", "analyze items"],
    ["old", "vacuum items"],
    ["old", "vacuum full items"],
    ["old", "cluster items using items_pkey"],
    ["old", "alter table items alter note set default 'x'"],
    ["old", "alter table items alter note set statistics 500"],
    ["old", "grant select on items to public"],
    ["old", "create table apart (id int primary key)"],
    ["new", "create index on items (title)"],
    ["new", "vacuum full items"],
    ["new", "create trigger mine before insert on items for each row execute function keep()"],
    ["old", "truncate items"],
    ["old", "insert into items values (1, 'again', 1, 'note')"],
  ] as const) {
    await world[side].query(harmless);
    await world.old.query("insert into parts values (2, 'eu') on conflict do nothing");
    await world.old.query("update parts set id = id");
    await world.drain();
  }
  expect(await titles(world)).toEqual([{ id: "1", title: "again", price: "1" }]);
});

test.skipIf(testedFeed() === "wal")(
  "a trigger that was dropped stays noticed when a feed is installed again, and by a new process",
  async () => {
    const world = await open();
    await world.old.query("drop trigger crossfade_log on items");
    const { openEngine } = await import("../../store/postgres/engine.ts");
    const { installFeed } = await import("../../store/postgres/install-feed.ts");
    await installFeed(world.old, "old", world.engine.context.compiled.logged);
    const again = openEngine({
      plan: world.plan,
      direction: "forward",
      epoch: 1,
      role: "x",
      instance: "b",
    });
    await expect(again).rejects.toMatchObject({ code: "SHAPE_CHANGED" });
  },
);
