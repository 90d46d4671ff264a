import { readFile } from "node:fs/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadPlan } from "../../config/load.ts";
import type { MappingSet, Plan } from "../../config/plan-types.ts";
import { seed } from "../../examples/colonycraft/seed.ts";
import { createSingleDatabase, withClient } from "../support/databases.ts";
import { PlainMapping } from "../support/plain-mapping.ts";

/** Both schemas of an example twice in one database: a, its image b, and what comes back from there. */
class Example {
  readonly url: string;
  readonly client: pg.Client;
  readonly plan: Plan;
  readonly mapping: PlainMapping;

  constructor(url: string, client: pg.Client, plan: Plan) {
    this.url = url;
    this.client = client;
    this.plan = plan;
    this.mapping = new PlainMapping(client);
  }

  get reverse(): MappingSet {
    if (this.plan.reverse === undefined) throw new Error("the example has no way back");
    return this.plan.reverse;
  }

  /** Runs a file of SQL into a schema of its own. */
  async schema(name: string, sql: string): Promise<void> {
    await this.client.query(`create schema ${name}; set search_path = ${name}`);
    await this.client.query(sql);
    await this.client.query("reset search_path");
  }

  /** old → new → old_again, and on to new_again. */
  async thereAndBack(): Promise<void> {
    await this.mapping.apply({ set: this.plan.forward, source: "old", target: "new" });
    await this.mapping.apply({ set: this.reverse, source: "new", target: "old_again" });
    await this.mapping.apply({ set: this.plan.forward, source: "old_again", target: "new_again" });
  }

  /** new → old_later → new_later. */
  async backAndThere(): Promise<void> {
    await this.mapping.apply({ set: this.reverse, source: "new", target: "old_later" });
    await this.mapping.apply({ set: this.plan.forward, source: "old_later", target: "new_later" });
  }
}

async function open(
  name: string,
  sql: { old: string; empty?: string; next: string },
): Promise<Example> {
  const url = await createSingleDatabase();
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const plan = loadPlan(`examples/${name}/crossfade.yaml`, {
    OLD_DATABASE_URL: `${url}_old`,
    NEW_DATABASE_URL: url,
  });
  const example = new Example(url, client, plan);
  await example.schema("old", sql.old);
  for (const schema of ["old_again", "old_later"])
    await example.schema(schema, sql.empty ?? sql.old);
  for (const schema of ["new", "new_again", "new_later"]) await example.schema(schema, sql.next);
  return example;
}

const file = (path: string) => readFile(path, "utf8");

describe("colonycraft", () => {
  let example: Example;

  beforeAll(async () => {
    const [old, next] = await Promise.all([
      file("examples/colonycraft/old-schema.sql"),
      file("examples/colonycraft/new-schema.sql"),
    ]);
    example = await open("colonycraft", { old, next });
    await withClient(example.url, (client) => client.query(old));
    await seed({ databaseUrl: example.url, conversations: 3_000, users: 20 });
    await example.client.query(`insert into old.users select * from public.users;
      insert into old.conversations select * from public.conversations`);
    await addConversations(example, [
      {},
      { category: "only" },
      { category: "first", more_tags: ["zz", "aa", "mm"] },
      { category: "x".repeat(50), other: { category: "not this one", more_tags: [] } },
      {
        category: "Größe 你好 🎈",
        more_tags: ["größe", "'quoted'", '"double"', "back\\slash", "a:b", " padded ", "null"],
      },
      { kept: [1.0, 1e3, null, "\t"], price: "1.00", category: "c" },
    ]);
    await example.client
      .query(`update old.conversations set metadata = metadata || '{"n": 1.00, "big": 12345678901234567890.10}'
      where title = 'extra 2'`);
    await example.thereAndBack();
  });
  afterAll(() => example.client.end());

  const addConversations = async ({ client }: Example, all: readonly object[]) => {
    for (const [i, metadata] of all.entries()) {
      await client.query(
        `insert into old.conversations select gen_random_uuid(), id, 'extra ' || $1, $2, '-infinity', now() from old.users limit 1`,
        [i, metadata],
      );
    }
  };

  test("the seed has conversations with no, one and several tags", async () => {
    const { rows } = await example.client
      .query(`select jsonb_array_length(metadata->'more_tags') as more,
      metadata ? 'category' as category, count(*)::int from old.conversations where title like 'Conv%' group by 1, 2 order by 3 desc`);
    expect(rows.map(({ category, more }) => [category, more])).toEqual(
      expect.arrayContaining([
        [true, null],
        [false, null],
        [true, 1],
        [true, 2],
        [true, 3],
      ]),
    );
    expect(rows.every(({ count }) => count > 30)).toBe(true);
  });

  test("reverse(forward(row)) = row for every row the old app can write", async () => {
    expect(await example.mapping.rejected(example.plan.forward, "old")).toEqual({});
    expect(await example.mapping.differences("old", "old_again")).toEqual({});
    expect(await example.mapping.differences("new", "new_again")).toEqual({});
    const { rows } = await example.client.query(
      "select (select count(*)::int from new.conversations) c, (select count(*)::int from new.conversation_tags) t",
    );
    expect(rows[0].c).toBe(3_006);
    expect(rows[0].t).toBeGreaterThan(3_000);
  });

  test("forward(reverse(row)) = row for rows the new app writes", async () => {
    const tag = "md5(c.user_id || ':' || name)::uuid";
    // Other tags, in the other order, for every third conversation; none at all for every fifth; unused tags stay behind.
    await example.client.query(`set search_path = new;
      insert into tags select distinct ${tag}, user_id, name from conversations c, unnest(array['n1', 'später', 'n3']) name;
      delete from conversation_tags ct using conversations c where c.id = conversation_id and hashtext(c.id::text) % 3 = 0;
      insert into conversation_tags select c.id, ${tag}, 3 - n from conversations c, unnest(array['n1', 'später', 'n3']) with ordinality t(name, n)
        where hashtext(c.id::text) % 3 = 0;
      delete from conversation_tags ct using conversations c where c.id = conversation_id and hashtext(c.id::text) % 5 = 0;
      update conversations set metadata = metadata || '{"new": "key"}', updated_at = now() where hashtext(id::text) % 2 = 0;
      reset search_path`);
    await example.backAndThere();
    expect(await example.mapping.differences("new", "new_later", { except: ["tags"] })).toEqual({});
    // A tag without a conversation has no place in the old schema, and none is needed: it is made again on use.
    const { rows } = await example.client.query(`select count(*)::int as lost from new.tags t
      where exists (select from new.conversation_tags where tag_id = t.id) and (id, user_id, name) not in (select id, user_id, name from new_later.tags)`);
    expect(rows[0].lost).toBe(0);
  });

  test("own and also name the right rows", async () => {
    expect(await example.mapping.misowned(example.plan.forward, "old")).toEqual({});
    const keys = await example.mapping.alsoKeys(example.reverse, "new");
    const { rows } = await example.client.query<{ id: string }>(
      "select conversation_id as id from new.conversation_tags",
    );
    const tagged = rows.map(({ id }) => id).toSorted();
    expect(keys["reverse.conversations: conversation_tags"]!.flat().toSorted()).toEqual(tagged);
    expect(keys["reverse.conversations: tags"]!.flat().toSorted()).toEqual(tagged);
  });

  test("rows outside the normal form are rejected, and nothing else breaks on them", async () => {
    await example.client.query("truncate old.conversations");
    await addConversations(example, [
      { category: 5 },
      { category: null },
      { category: "" },
      { category: "y".repeat(51) },
      { more_tags: ["a"] },
      { category: "a", more_tags: [] },
      { category: "a", more_tags: "b" },
      { category: "a", more_tags: ["b", "b"] },
      { category: "a", more_tags: ["b", "a"] },
      { category: "a", more_tags: ["b", 7] },
      { category: "a", more_tags: [["b"]] },
      { category: "a", more_tags: [null] },
      { category: "a", more_tags: ["b", ""] },
      { category: "a", more_tags: ["z".repeat(51)] },
      { category: { a: 1 } },
      { category: ["a"] },
    ]);
    await example.client.query(`insert into old.conversations
      select gen_random_uuid(), id, 'no object', m::jsonb, now(), now() from (select id from old.users limit 1) u, unnest(array['[]', '7', 'null', '["category"]', '{"category": "kept"}']) m`);
    await example.client.query("truncate new.users cascade");
    await example.mapping.apply({ set: example.plan.forward, source: "old", target: "new" });
    const { rows } = await example.client
      .query(`select (select count(*)::int from new.conversations) c,
      (select count(*)::int from new.conversation_tags) ct, (select array_agg(name) from new.tags) t`);
    expect(rows[0]).toEqual({ c: 1, ct: 1, t: ["kept"] });
  });
});

describe("northwind", () => {
  let example: Example;

  beforeAll(async () => {
    const dump = await file("examples/northwind/northwind.sql");
    const empty = dump.replaceAll(/^INSERT INTO .*$/gm, "");
    example = await open("northwind", {
      old: dump,
      empty,
      next: await file("examples/northwind/new-schema.sql"),
    });
    await example.client.query("set search_path = old");
    // What the real data does not have: empty addresses, photos, demographics, an order with nothing but its number.
    await example.client.query(`
      insert into customer_demographics values ('VIP', 'pays'), ('NEW', null);
      insert into customer_customer_demo values ('ALFKI', 'VIP'), ('ALFKI', 'NEW'), ('ANATR', 'VIP');
      insert into customers values ('EMPTY', 'Nowhere', null, null, null, null, null, null, null), ('BLANK', 'Empty but not null', null, null, '', '', '', '', '');
      insert into suppliers values (3000, 'No address');
      insert into shippers values (32767, 'Largest', null);
      insert into employees values (-1, 'Minus', 'One', null, null, null, 'infinity', null, 'Rome');
      insert into categories values (99, 'With picture', null, '\\xdeadbeef00');
      insert into orders (order_id) values (1);
      insert into orders (order_id, freight) values (2, 0);
      insert into orders (order_id, ship_region) values (3, '');
      insert into order_details values (1, 1, 0.1, 1, 0.15), (1, 2, 16777216, -1, 0.0001), (1, 3, 99999992, 0, 'NaN'), (1, 4, -263.5, 32767, 0.3333)`);
    await example.client.query("reset search_path");
    await example.thereAndBack();
  });
  afterAll(() => example.client.end());

  test("reverse(forward(row)) = row for every row of the real data and the edges", async () => {
    expect(await example.mapping.rejected(example.plan.forward, "old")).toEqual({});
    expect(await example.mapping.rejected(example.reverse, "new")).toEqual({});
    expect(await example.mapping.differences("old", "old_again")).toEqual({});
    expect(await example.mapping.differences("new", "new_again")).toEqual({});
    const { rows } = await example.client
      .query(`select (select count(*)::int from old_again.orders) orders,
      (select count(*)::int from old_again.order_details) lines, (select count(*)::int from new.companies) companies,
      (select count(*)::int from new.addresses) addresses, (select count(*)::int from new.shipments) shipments`);
    expect(rows[0]).toEqual({
      orders: 833,
      lines: 2159,
      companies: 30 + 7,
      addresses: 92 + 10 + 29,
      shipments: 832,
    });
  });

  test("what the mappings make satisfies the constraints of both schemas", async () => {
    for (const schema of ["old_again", "new"]) {
      const { rows } = await example.client.query<{ sql: string }>(
        `select format('alter table %s drop constraint %I, add constraint %2$I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) as sql
         from pg_constraint where connamespace = $1::regnamespace and contype in ('f', 'c')`,
        [schema],
      );
      expect(rows.length).toBeGreaterThan(10);
      for (const { sql } of rows) await example.client.query(sql);
    }
  });

  test("forward(reverse(row)) = row for rows the new app writes", async () => {
    await example.client.query(`set search_path = new;
      delete from addresses where owner_id in ('ALFKI', '2');
      insert into addresses (owner_kind, owner_id, country) values ('customer', 'EMPTY', 'Japan'), ('supplier', '3000', '');
      update addresses set street = null, city = null where owner_id = 'ANATR';
      update order_lines set unit_price = unit_price + 0.01, discount = 0.5 where unit_price < 100;
      update products set unit_price = 19.5000, discontinued = not discontinued where id % 2 = 0;
      update companies set name = 'Renamed ' || id where id < 3;
      insert into companies (kind, id, name) values ('shipper', 29, 'Same number as a supplier');
      delete from shipments where order_id % 7 = 0;
      update shipments set recipient = null, freight = freight + 1, shipper_id = 29 where order_id % 7 = 1;
      insert into orders (id, ordered_on) values (4, '0044-03-15 BC');
      update employees set manager_id = null where id = 3;
      reset search_path`);
    expect(await example.mapping.rejected(example.reverse, "new")).toEqual({});
    await example.backAndThere();
    expect(await example.mapping.differences("new", "new_later")).toEqual({});
  });

  test("own and also name the right rows", async () => {
    expect(await example.mapping.misowned(example.plan.forward, "old")).toEqual({});
    expect(await example.mapping.misowned(example.reverse, "new")).toEqual({});
    const keys = await example.mapping.alsoKeys(example.reverse, "new");
    const { rows } = await example.client.query<{ kind: string; id: string }>(
      "select owner_kind as kind, owner_id as id from new.addresses",
    );
    const idsOf = (kind: string) => rows.filter((row) => row.kind === kind).map(({ id }) => id);
    expect(keys["reverse.customers: addresses"]!.flat().toSorted()).toEqual(
      idsOf("customer").toSorted(),
    );
    expect(keys["reverse.employees: addresses"]!.flat().toSorted()).toEqual(
      idsOf("employee").toSorted(),
    );
    expect(keys["reverse.suppliers: addresses"]!.map((key) => key.join()).toSorted()).toEqual(
      idsOf("supplier")
        .map((id) => `supplier,${id}`)
        .toSorted(),
    );
    expect(keys["reverse.orders: shipments"]!.length).toBeGreaterThan(600);
  });

  test("numbers that would not come back the same are rejected, on both ways", async () => {
    await example.client
      .query(`insert into old.order_details (order_id, product_id, unit_price, quantity, discount) values
      (3, 1, '-0', 1, 0), (3, 2, 1.00001, 1, 0), (3, 3, 'Infinity', 1, 0), (3, 4, 1e30, 1, 0), (3, 5, 0, 1, 1e-40)`);
    expect(await example.mapping.rejected(example.plan.forward, "old")).toEqual({
      "forward.order_lines: a price that numeric(12,4) does not hold exactly": 4,
      "forward.order_lines: a discount that numeric(12,4) does not hold exactly": 1,
    });
    await example.client
      .query(`insert into new.order_lines values (3, 1, 12345678.9123, 1, 0.1), (3, 2, 1, 32768, 0.1);
      insert into new.orders (id) values (40000); insert into new.shipments (order_id, freight) values (40000, 123456.7891)`);
    expect(await example.mapping.rejected(example.reverse, "new")).toEqual({
      "reverse.order_details: a price with more digits than a real holds": 1,
      "reverse.order_details: too many for the old schema": 1,
      "reverse.orders: a number too large for the old schema": 1,
      "reverse.orders: a freight with more digits than a real holds": 1,
    });
  });
});
