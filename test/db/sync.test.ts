import { afterEach, expect, test } from "vitest";
import { createDatabasePair, createSingleDatabase, withClient } from "../support/databases.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

const worlds: SyncWorld[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close();
});

const OLD = `
  create table users (id bigint primary key, name text not null, email text unique);
  create table conversations (id uuid primary key, user_id bigint not null references users, title text, metadata jsonb not null default '{}');`;
const NEW = `
  create table users (id bigint primary key, name text not null, email text unique);
  create table conversations (id uuid primary key, user_id bigint not null references users, title text, metadata jsonb not null default '{}');
  create table tags (id uuid primary key, user_id bigint not null, name text not null);
  create table conversation_tags (conversation_id uuid references conversations on delete cascade, tag_id uuid references tags, primary key (conversation_id, tag_id));`;
const TAG_ID = "md5(user_id || ':' || (metadata->>'category'))::uuid";

const FORWARD = [
  mapping("users", "users"),
  mapping("conversations", "conversations", {
    set: new Map([["metadata", "metadata - 'category'"]]),
  }),
  mapping("tags", "conversations", {
    where: "metadata ? 'category'",
    own: "none",
    set: new Map([
      ["id", TAG_ID],
      ["name", "metadata->>'category'"],
    ]),
  }),
  mapping("conversation_tags", "conversations", {
    where: "metadata ? 'category'",
    own: new Map([["conversation_id", "id"]]),
    set: new Map([
      ["conversation_id", "id"],
      ["tag_id", TAG_ID],
    ]),
    reject: new Map([["category too long", "length(metadata->>'category') > 50"]]),
  }),
];

const QUERY = `select c.*, (select min(t.name) from conversation_tags ct join tags t on t.id = ct.tag_id where ct.conversation_id = c.id) as category from conversations c`;
const REVERSE = [
  mapping("users", "users"),
  mapping("conversations", "conversations", {
    query: QUERY,
    also: {
      conversation_tags: "conversation_id",
      tags: "select conversation_id from conversation_tags where tag_id = tags.id",
    },
    set: new Map([
      [
        "metadata",
        "metadata || case when category is null then '{}'::jsonb else jsonb_build_object('category', category) end",
      ],
    ]),
  }),
];

async function openWorld(
  kind: "two databases" | "one database",
  direction: "forward" | "reverse",
): Promise<SyncWorld> {
  let urls: { oldUrl: string; newUrl: string };
  let schemas = {};
  if (kind === "two databases") {
    urls = await createDatabasePair();
    await withClient(urls.oldUrl, (client) => client.query(OLD));
    await withClient(urls.newUrl, (client) => client.query(NEW));
  } else {
    const url = await createSingleDatabase();
    urls = { oldUrl: url, newUrl: url };
    schemas = { newSchema: "fresh" };
    await withClient(url, (client) =>
      client.query(`${OLD}; create schema fresh; set search_path = fresh; ${NEW}`),
    );
  }
  const world = await SyncWorld.open(
    { ...urls, ...schemas, forward: FORWARD, reverse: REVERSE },
    direction,
  );
  if (kind === "one database") await world.new.query("set search_path = fresh");
  worlds.push(world);
  return world;
}

const rows = async (client: SyncWorld["old"], sql: string) =>
  (await client.query({ text: sql, rowMode: "array" })).rows;
const A = "00000000-0000-0000-0000-00000000000a";
const B = "00000000-0000-0000-0000-00000000000b";

for (const kind of ["two databases", "one database"] as const) {
  test(`${kind}: inserts, updates, key changes and deletes arrive`, async () => {
    const world = await openWorld(kind, "forward");
    await world.old.query(
      "insert into users values (9007199254740993, 'Ada', 'a@x'), (2, 'Bob', null)",
    );
    await world.old.query(
      `insert into conversations values ('${A}', 2, 'first', '{"category":"work","n":1.0}'), ('${B}', 2, 'second', '{}')`,
    );
    await world.drain();
    expect(await rows(world.new, "select id, name, email from users order by id")).toEqual([
      ["2", "Bob", null],
      ["9007199254740993", "Ada", "a@x"],
    ]);
    expect(
      await rows(
        world.new,
        "select c.title, t.name, c.metadata from conversations c left join conversation_tags ct on ct.conversation_id = c.id left join tags t on t.id = ct.tag_id order by c.title",
      ),
    ).toEqual([
      ["first", "work", '{"n": 1.0}'],
      ["second", null, "{}"],
    ]);
    await world.old.query(
      `update conversations set metadata = '{"category":"play"}' where id = '${A}'`,
    );
    await world.old.query(
      `update conversations set id = '00000000-0000-0000-0000-0000000000ff' where id = '${B}'`,
    );
    await world.drain();
    expect(
      await rows(
        world.new,
        "select t.name from conversation_tags ct join tags t on t.id = ct.tag_id",
      ),
    ).toEqual([["play"]]);
    expect(await rows(world.new, "select name from tags order by 1")).toEqual([["play"], ["work"]]);
    expect(await rows(world.new, "select id from conversations order by id")).toEqual([
      [A],
      ["00000000-0000-0000-0000-0000000000ff"],
    ]);
    await world.old.query("delete from conversations");
    await world.drain();
    expect(await rows(world.new, "select count(*) from conversations")).toEqual([["0"]]);
    expect(await rows(world.new, "select count(*) from conversation_tags")).toEqual([["0"]]);
    expect(await rows(world.old, "select count(*) from crossfade.log_old where op <> 'f'")).toEqual(
      [["0"]],
    );
  });

  test(`${kind}: reverse through a query and its also tables`, async () => {
    const world = await openWorld(kind, "reverse");
    await world.new.query("insert into users values (1, 'Ada', null)");
    await world.new.query(`insert into conversations values ('${A}', 1, 'first', '{"x":1}')`);
    await world.new.query(`insert into tags values ('${B}', 1, 'work')`);
    await world.new.query(`insert into conversation_tags values ('${A}', '${B}')`);
    await world.drain();
    expect(await rows(world.old, "select title, metadata from conversations")).toEqual([
      ["first", '{"x": 1, "category": "work"}'],
    ]);
    await world.new.query("update tags set name = 'rest'");
    await world.drain();
    expect(await rows(world.old, "select metadata->>'category' from conversations")).toEqual([
      ["rest"],
    ]);
    await world.new.query("delete from conversation_tags");
    await world.drain();
    expect(await rows(world.old, "select metadata from conversations")).toEqual([['{"x": 1}']]);
    await world.new.query("delete from conversations");
    await world.drain();
    expect(await rows(world.old, "select count(*) from conversations")).toEqual([["0"]]);
  });

  test(`${kind}: truncate empties what is made from the table, and only that`, async () => {
    const world = await openWorld(kind, "forward");
    await world.old.query("insert into users values (1, 'Ada', null)");
    await world.old.query(
      `insert into conversations values ('${A}', 1, 'first', '{"category":"work"}')`,
    );
    await world.drain();
    await world.old.query("truncate conversations");
    await world.old.query(
      `insert into conversations values ('${B}', 1, 'again', '{"category":"work"}')`,
    );
    await world.drain();
    expect(await rows(world.new, "select title from conversations")).toEqual([["again"]]);
    expect(await rows(world.new, "select conversation_id from conversation_tags")).toEqual([[B]]);
    expect(await rows(world.new, "select count(*) from users")).toEqual([["1"]]);
  });
}

test("a rejected row is quarantined, its target rows stay, and a later change heals it", async () => {
  const world = await openWorld("two databases", "forward");
  await world.old.query("insert into users values (1, 'Ada', null)");
  await world.old.query(
    `insert into conversations values ('${A}', 1, 'first', '{"category":"work"}'), ('${B}', 1, 'b', '{}')`,
  );
  await world.drain();
  await world.old.query(
    `update conversations set metadata = jsonb_build_object('category', repeat('x', 60)), title = 'changed'`,
  );
  await world.drain();
  expect(
    await rows(
      world.new,
      "select mapping, reason, state, key::text from crossfade.quarantine order by key",
    ),
  ).toEqual([
    ["test.conversation_tags", "category too long", "quarantined", `{${A}}`],
    ["test.conversation_tags", "category too long", "quarantined", `{${B}}`],
  ]);
  expect(await rows(world.new, "select count(*) from conversation_tags")).toEqual([["1"]]);
  expect(await rows(world.new, "select distinct title from conversations")).toEqual([["changed"]]);
  const fence = await new (await import("../../store/postgres/trigger-feed.ts")).TriggerFeed(
    "old",
    world.engine.context.source,
  ).writeFence();
  await world.drain();
  expect(
    BigInt((await rows(world.new, "select fence from crossfade.position"))[0]?.[0] ?? 0),
  ).toBeLessThan(fence);
  await world.old.query(`update conversations set metadata = '{}'`);
  await world.drain();
  expect(await rows(world.new, "select count(*) from crossfade.quarantine")).toEqual([["0"]]);
  expect(await rows(world.new, "select count(*) from conversation_tags")).toEqual([["0"]]);
  expect(
    (
      await rows(
        world.new,
        "select fence >= $1 from crossfade.position".replace("$1", String(fence)),
      )
    )[0]?.[0],
  ).toBe("t");
});

test("unique values that change places arrive, in one transaction and in two", async () => {
  const world = await openWorld("two databases", "forward");
  await world.old.query(
    "insert into users values (1, 'Ada', 'a'), (2, 'Bob', 'b'), (3, 'Cy', 'c')",
  );
  await world.drain();
  await world.old.query(
    "begin; update users set email = null where id = 1; update users set email = 'a' where id = 2; update users set email = 'b' where id = 1; commit",
  );
  await world.drain();
  await world.drain();
  expect(await rows(world.new, "select id, email from users order by id")).toEqual([
    ["1", "b"],
    ["2", "a"],
    ["3", "c"],
  ]);
  expect(await rows(world.new, "select count(*) from crossfade.quarantine")).toEqual([["0"]]);
});

test("a row the target refuses stands alone in quarantine; its neighbours arrive", async () => {
  const world = await openWorld("two databases", "forward");
  await world.new.query("alter table users add check (name <> 'bad')");
  await world.old.query(
    "insert into users select n, case when n = 37 then 'bad' else 'u' || n end, null from generate_series(1, 100) n",
  );
  await world.drain();
  expect(await rows(world.new, "select count(*) from users")).toEqual([["99"]]);
  expect(
    await rows(world.new, "select key::text, state, sqlstate from crossfade.quarantine"),
  ).toEqual([["{37}", "quarantined", "23514"]]);
});

test("a sync whose epoch is over changes nothing", async () => {
  const world = await openWorld("two databases", "forward");
  await world.old.query("insert into users values (1, 'Ada', null)");
  await world.new.query("update crossfade.state set epoch = 2");
  await expect(world.drain()).rejects.toMatchObject({ code: "STALE" });
  expect(await rows(world.new, "select count(*) from users")).toEqual([["0"]]);
});

test("a mapping that looks at what another one makes sees it within a pass, and so does its condition", async () => {
  const urls = await createDatabasePair();
  const tables = (author: string) =>
    `create table users (id int primary key, name text); create table posts (id int primary key, author int ${author}, by text)`;
  await withClient(urls.oldUrl, (client) => client.query(tables("")));
  await withClient(urls.newUrl, (client) => client.query(tables("references users")));
  const world = await SyncWorld.open({
    ...urls,
    forward: [
      mapping("users", "users"),
      mapping("posts", "posts", {
        also: { users: "select id from posts where author = users.id" },
        set: new Map([["by", "(select u.name from public.users u where u.id = author)"]]),
        reject: new Map([
          ["no author", "not exists (select from public.users u where u.id = author)"],
        ]),
      }),
    ],
  });
  worlds.push(world);
  await world.old.query(
    "begin; insert into posts values (10, 1); insert into users values (1, 'Ada'); commit",
  );
  await world.drain();
  const posts = "select id, author, by from posts order by 1";
  expect(await rows(world.new, posts)).toEqual([["10", "1", "Ada"]]);
  await world.old.query("update users set name = 'Bo'; insert into posts values (11, 1), (12, 9)");
  await world.drain();
  expect(await rows(world.new, posts)).toEqual([
    ["10", "1", "Bo"],
    ["11", "1", "Bo"],
  ]);
  expect(await rows(world.new, "select key::text, reason from crossfade.quarantine")).toEqual([
    ["{12}", "no author"],
  ]);
});
