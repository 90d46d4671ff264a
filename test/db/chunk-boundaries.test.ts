import { expect, test } from "vitest";
import { boundariesSql } from "../../store/postgres/boundaries.ts";
import { chunkRanges } from "../../store/postgres/chunks.ts";
import { compilePlan } from "../../store/postgres/engine.ts";
import { createSingleDatabase, withClient } from "../support/databases.ts";
import { mapping, testPlan } from "../support/sync-world.ts";

/** Keys of odd types; nine of ten rows begin with the same value, the others lie far apart. */
const KEYS = {
  numbers: "id bigint primary key",
  pairs: `grp whole, code varchar(40) collate "C", note char(3), primary key (grp, code, note)`,
  backwards: "id bigint not null, more int",
  parted: "id bigint, part int, primary key (id, part)",
} as const;
const ROWS = 12_000;
const CHUNK = 700;

test("boundaries are exact for skewed and sparse keys, one or many columns, with steps and without", async () => {
  const url = await createSingleDatabase();
  await withClient(url, async (client) => {
    const tables = Object.entries(KEYS).map(
      ([name, columns]) =>
        `create table SCHEMA.${name} (${columns}) ${name === "parted" ? "partition by hash (part)" : ""};`,
    );
    const both = ["was", "next"].map((schema) =>
      [
        `create schema ${schema};`,
        ...tables,
        "create unique index on SCHEMA.backwards (id desc);",
        ...[0, 1, 2].map(
          (n) =>
            `create table SCHEMA.parted_${n} partition of SCHEMA.parted for values with (modulus 3, remainder ${n});`,
        ),
      ]
        .join("\n")
        .replaceAll("SCHEMA", schema),
    );
    await client.query(`create domain public.whole as int check (value > -1); ${both.join("\n").replaceAll("whole", "public.whole")}
      insert into was.numbers select n::bigint * n * n from generate_series(1, ${ROWS}) n;
      insert into was.pairs select case when n % 10 < 9 then 1 else n * 7919 % 100000 end, md5(n::text), n % 7 from generate_series(1, ${ROWS}) n;
      insert into was.backwards select n * 3, n from generate_series(1, ${ROWS}) n;
      insert into was.parted select n, n % 50 from generate_series(1, ${ROWS}) n;
      analyze`);
    const plan = testPlan({
      oldUrl: url,
      newUrl: url,
      oldSchema: "was",
      newSchema: "next",
      forward: Object.keys(KEYS).map((table) => mapping(table, table)),
    });
    const compiled = await compilePlan(plan, "forward", "test", "boundaries");
    const asText = { getTypeParser: () => (value: unknown) => value };
    for (const driver of compiled.drivers) {
      const order = driver.key.map(({ name }) => name).join(", ");
      const { rows } = await client.query({
        text: `select ${order} from (select *, row_number() over (order by ${order}) as rn from was.${driver.name}) t where rn > 1 and (rn - 1) % ${CHUNK} = 0 order by rn`,
        rowMode: "array",
        types: asText,
      });
      expect(rows).toHaveLength(Math.floor((ROWS - 1) / CHUNK));
      expect(await boundariesSql(client, compiled, driver, CHUNK), driver.name).toMatch(
        /^with recursive/,
      );
      // Without the rule for the key's index each step would sort the table.
      const unknown = { ...driver, uniqueKey: false };
      expect(await boundariesSql(client, compiled, unknown, CHUNK)).toMatch(/row_number/);
      for (const one of [driver, unknown]) {
        const found = await chunkRanges(compiled, one, client, CHUNK);
        expect(found.map(({ lo }) => lo?.map(String) ?? null)).toEqual([null, ...rows]);
        expect(found.map(({ hi }) => hi?.map(String) ?? null)).toEqual([...rows, null]);
      }
    }
    await client.query("drop index was.backwards_id_idx");
    const driver = compiled.drivers.find(({ name }) => name === "backwards");
    expect(await boundariesSql(client, compiled, driver!, CHUNK)).toMatch(/row_number/);
  });
});
