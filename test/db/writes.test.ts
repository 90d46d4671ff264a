import { expect, onTestFinished, test } from "vitest";
import type { MappingPlan } from "../../config/plan-types.ts";
import { run } from "../../store/postgres/statement.ts";
import { createDatabasePair, postgresVersion, withClient } from "../support/databases.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

/** Every kind of statement that changes rows, on the feed this file is run for. */
async function open(tables: string, forward: readonly MappingPlan[]): Promise<SyncWorld> {
  const urls = await createDatabasePair();
  for (const url of [urls.oldUrl, urls.newUrl])
    await withClient(url, (client) => client.query(tables));
  const world = await SyncWorld.open({ ...urls, forward });
  onTestFinished(() => world.close());
  return world;
}

/** After each statement the tables are equal on both sides, and something was there to be told apart. */
async function follow(
  world: SyncWorld,
  tables: readonly string[],
  writes: readonly string[],
): Promise<void> {
  for (const write of writes) {
    await world.old.query(write);
    await world.drain();
    for (const table of tables) {
      const sql = `select i::text from ${table} i order by 1`;
      expect(await run(world.new, sql), write).toEqual(await run(world.old, sql));
    }
  }
}

test("every kind of write is seen: COPY, MERGE, on conflict, cascades, truncate with its dependants, replication", async () => {
  const world = await open(
    `create table items (id int primary key, n int not null);
     create table parts (id int primary key, item int references items on delete cascade on update cascade, n int);`,
    [mapping("items", "items"), mapping("parts", "parts")],
  );
  const writes = [
    "copy items from program 'printf \"1\\t1\\n2\\t2\\n3\\t3\\n4\\t4\\n\"'",
    "insert into parts select i * 10, i, i from items i(i)",
    ...(postgresVersion() < 15
      ? []
      : [
          "merge into items using (values (1, 11), (2, null), (9, 9)) s(id, v) on items.id = s.id when matched and v is null then delete when matched then update set n = v when not matched then insert values (s.id, v)",
        ]),
    "insert into items values (1, 1), (5, 5) on conflict (id) do update set n = items.n + 100",
    "insert into items values (1, 7) on conflict do nothing",
    "update items set id = 30 where id = 3",
    "with gone as (delete from items where id = 4 returning id) insert into items select 40, id from gone",
    "begin; set local session_replication_role = replica; update items set n = -1 where id = 5; commit",
    "begin; insert into items values (6, 6); savepoint s; update items set n = 8; rollback to s; commit",
    "truncate items cascade",
    "insert into items values (1, 2)",
  ];
  await follow(world, ["items", "parts"], writes);
});

test("partitions: rows that move, writes straight to a leaf, a leaf truncated alone", async () => {
  const world = await open(
    `create table items (id int, part int, n int not null, primary key (id, part)) partition by list (part);
     create table items_1 partition of items for values in (1); create table items_2 partition of items for values in (2);`,
    [mapping("items", "items")],
  );
  const writes = [
    "insert into items select i, 1 + i % 2, 0 from generate_series(1, 10) i",
    "update items set part = 3 - part where id < 4",
    "update items_1 set n = 5",
    "delete from items_2 where id = 5",
    "insert into items_1 values (100, 1, 1)",
    "truncate items_1",
    "update items set n = 9",
    "truncate items",
  ];
  await follow(world, ["items"], writes);
});

test("inheritance: an heir that is mapped is followed when it is written through its parent too", async () => {
  const world = await open(
    `create table base (id int primary key, n int not null);
     create table items (primary key (id)) inherits (base);`,
    [mapping("items", "items")],
  );
  const writes = [
    "insert into items select i, 0 from generate_series(1, 5) i",
    "insert into base values (100, 0)",
    "update base set n = n + 1",
    "update base set id = id + 10 where id < 3",
    "delete from base where id in (3, 100)",
    "update only base set n = 77",
    "truncate base",
    "insert into items values (1, 1)",
    "truncate only items",
  ];
  await follow(world, ["items"], writes);
});

test("a foreign key's own writes are seen: cascades over several tables, set null, set default", async () => {
  const world = await open(
    `create table items (id int primary key);
     create table parts (id int primary key, item int references items on delete cascade on update cascade);
     create table notes (id int primary key, part int references parts on delete set null on update cascade,
       item int default 1 references items on delete set default on update cascade);`,
    [mapping("items", "items"), mapping("parts", "parts"), mapping("notes", "notes")],
  );
  const writes = [
    "insert into items select i from generate_series(1, 4) i",
    "insert into parts select i * 10, i from items x(i)",
    "insert into notes select i * 100, i * 10, i from items x(i)",
    "update items set id = id + 1000 where id > 2",
    "update parts set id = id + 1 where id > 20",
    "delete from items where id in (2, 1003)",
    "truncate items cascade",
  ];
  await follow(world, ["items", "parts", "notes"], writes);
});
