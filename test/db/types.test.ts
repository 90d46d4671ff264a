import { afterEach, expect, test } from "vitest";
import { compareChunk } from "../../store/postgres/compare.ts";
import { planChunks } from "../../store/postgres/chunks.ts";
import { syncChunk } from "../../store/postgres/sync-chunk.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

const worlds: SyncWorld[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close();
});

/** Types with values that broke other tools: [type, literals]. */
const TYPES: readonly (readonly [string, readonly string[]])[] = [
  ["bigint", ["9223372036854775807", "-9223372036854775808", "9007199254740993"]],
  ["numeric", ["'NaN'", "'Infinity'", "1.00", "1.0", `'${"9".repeat(500)}.${"1".repeat(400)}'`]],
  ["double precision", ["'-0'", "'NaN'", "0.1::float8 + 0.2::float8", "'-Infinity'", "5e-324"]],
  ["real", ["19.5", "0.1", "'-0'"]],
  [
    "text",
    [
      "''",
      "'NULL'",
      "E'\\\\N'",
      "E'tab\\tline\\nback\\\\slash'",
      "'{\"a\"}'",
      "U&'\\+01F600'",
      "E'\\u0001'",
    ],
  ],
  ["character(5)", ["'a'", "''"]],
  ["character varying(7)", ["'seven77'"]],
  ["boolean", ["true", "false"]],
  ["bytea", ["'\\x00ff'", "''"]],
  ["uuid", ["'00000000-0000-0000-0000-00000000000a'"]],
  ["date", ["'infinity'", "'0044-03-15 BC'", "'1969-12-31'"]],
  [
    "timestamp with time zone",
    ["'2024-03-31 02:30:00.123456+02'", "'-infinity'", "'0001-01-01 00:00:00+00 BC'"],
  ],
  ["timestamp(3) without time zone", ["'2024-01-01 00:00:00.123456'"]],
  ["time with time zone", ["'24:00:00+00'"]],
  ["interval", ["'1 year -2 days 03:04:05.000006'"]],
  ["integer[]", ["'{1,NULL,3}'", "'[2:3]={1,2}'", "'{{1,2},{3,4}}'", "'{}'"]],
  ["text[]", ["array['a,b', 'NULL', null, '', '\"']"]],
  ["jsonb", ['\'{"a": 1.0, "b": null}\'', "'null'", "'1.10'"]],
  ["json", ['\'{"a":1,  "a":2}\'', "'null'"]],
  ["int4range", ["'[1,5)'", "'empty'"]],
  ["int4multirange", ["'{[1,2), [5,9)}'"]],
  ["bit(4)", ["B'1010'"]],
  ["bit varying(6)", ["B'101'"]],
  ["inet", ["'10.0.0.1'", "'10.0.0.0/8'"]],
  ["cidr", ["'10.0.0.0/8'"]],
  ["macaddr", ["'08:00:2b:01:02:03'"]],
  ["point", ["'(1,-0)'"]],
  ["polygon", ["'((0,0),(1,1),(1,0))'"]],
  ["xml", ["'<a b=\"1\">x</a>'"]],
  ["tsvector", ["'fat:1A cat:2'"]],
  ["money", ["'-1234.56'"]],
  ["mood", ["'sad'", "'so so, \"fine\"'"]],
  ["pair", ["row(1, 'a,b')::pair", "row(null, null)::pair"]],
  ["posint", ["7"]],
  ["mood[]", ["array['sad', null]::mood[]", "'[0:0]={sad}'"]],
  ["pair[]", ["array[row(1, 'a,\"b')::pair, null]"]],
  ["hstore", [`'"a"=>NULL, "b,"=>"\\"c"'`, "''"]],
  ["numeric(1000,500)", [`'-${"9".repeat(500)}.${"1".repeat(500)}'`]],
  ["time", ["'23:59:59.999999'", "'24:00'"]],
  ["smallint", ["-32768"]],
  ["name", ["'n'"]],
  ['"char"', [`'x'`, `''`]],
  ["oid", ["4294967295"]],
  ["pg_lsn", ["'16/B374D848'"]],
  ["macaddr8", ["'08:00:2b:01:02:03:04:05'"]],
  ["line", ["'{1,-2,0.1}'"]],
  ["lseg", ["'[(0,0),(1,0.1)]'"]],
  ["box", ["'(1,1),(0,-0)'"]],
  ["path", ["'[(0,0),(1,1)]'", "'((0,0),(2,2))'"]],
  ["circle", ["'<(0.1,0),3>'"]],
  ["tsquery", ["'fat & !rat:A'"]],
  ["tstzrange", ["'[2024-01-01 00:00+02,infinity)'", "'empty'"]],
  ["nummultirange", ["'{[1.0,2.50),(3,]}'"]],
  ["daterange[]", ["array['[2024-01-01,2024-02-01)'::daterange, null]"]],
  ["timestamp(0) with time zone[]", ["'{\"2024-01-01 00:00:00+00\",infinity}'"]],
];

const TYPE_SQL = `create extension hstore; create type mood as enum ('sad', 'so so, "fine"'); create type pair as (a int, b text); create domain posint as int check (value > 0);`;
const columns = TYPES.map(([type], i) => `c${i} ${type}`).join(", ");
const TABLE = `${TYPE_SQL} create table "Odd ""Table" (id int primary key, ${columns})`;

for (const direction of ["forward", "reverse"] as const) {
  test(`${direction}: every type arrives exactly, by mirror and by copy, and verify sees it`, async () => {
    const { oldUrl, newUrl } = await createDatabasePair();
    for (const url of [oldUrl, newUrl]) await withClient(url, (client) => client.query(TABLE));
    const mappings = [mapping('Odd "Table', 'Odd "Table')];
    const world = await SyncWorld.open(
      { oldUrl, newUrl, forward: mappings, reverse: mappings },
      direction,
    );
    worlds.push(world);
    const [from, to] = direction === "forward" ? [world.old, world.new] : [world.new, world.old];
    const depth = Math.max(...TYPES.map(([, values]) => values.length));
    for (let row = 0; row < depth; row += 1) {
      const values = TYPES.map(([, literals]) => literals[row] ?? "null").join(", ");
      await from.query(`insert into "Odd ""Table" values (${row}, ${values})`);
    }
    const dump = async (client: typeof from) =>
      (await client.query({ text: `select * from "Odd ""Table" order by id`, rowMode: "array" }))
        .rows;
    const expected = await dump(from);
    expect(expected.length).toBe(depth);

    await world.drain();
    expect(
      await to
        .query("select mapping, reason from crossfade.quarantine")
        .then((result) => result.rows),
    ).toEqual([]);
    expect(await dump(to)).toEqual(expected);

    await to.query(`delete from "Odd ""Table"`);
    const { compiled, source, target } = world.engine.context;
    const driver = compiled.drivers[0];
    if (driver === undefined) throw new Error("no driver");
    const { version } = await planChunks(compiled, driver, source, target, 100);
    expect(
      await syncChunk(world.engine.context, driver, { n: 0, lo: null, hi: null, version }),
    ).toMatchObject({ rows: depth, refused: 0 });
    expect(await dump(to)).toEqual(expected);

    const range = { lo: null, hi: null };
    expect(await compareChunk(world.engine.context, driver, range, () => true)).toEqual({
      compared: depth,
      differences: [],
    });
    await to.query(`update "Odd ""Table" set c1 = 1.000 where id = 3`);
    expect(
      (await compareChunk(world.engine.context, driver, range, () => true)).differences,
    ).toMatchObject([{ mapping: 'test.Odd "Table', kind: "different", key: ["3"] }]);
  });
}

/** Keys of types whose text follows the writer's settings, or has several forms. */
const KEYS: readonly (readonly [string, readonly string[]])[] = [
  ["timestamp with time zone", ["'2024-03-31 02:30:00.123456+02'", "'infinity'"]],
  ["date", ["'0044-03-15 BC'", "'2024-01-02'"]],
  ["double precision", ["0.1", "1e300"]],
  ["numeric", ["1.50", "'NaN'"]],
  ["character(5)", ["'a'", "'b c'"]],
  ["bytea", ["'\\x00ff'", "''"]],
  ["boolean", ["true", "false"]],
  ["inet", ["'10.0.0.1'", "'10.0.0.0/8'"]],
  ["interval", ["'1 year'", "'-3 days'"]],
  ["mood", ["'sad'"]],
  ["text", ["'ä,{\"'", "''"]],
];

test("every type of key is logged exactly, whatever the writer's session is set to", async () => {
  const { oldUrl, newUrl } = await createDatabasePair();
  const tables = KEYS.map(
    ([type], i) => `create table k${i} (k ${type}, n int, v text, primary key (k, n))`,
  ).join("; ");
  for (const url of [oldUrl, newUrl])
    await withClient(url, (client) => client.query(`${TYPE_SQL} ${tables}`));
  const world = await SyncWorld.open({
    oldUrl,
    newUrl,
    forward: KEYS.map((_, i) => mapping(`k${i}`, `k${i}`)),
  });
  worlds.push(world);
  for (const [i, [, values]] of KEYS.entries()) {
    await world.old.query(
      "set datestyle = 'German'; set timezone = 'Asia/Tokyo'; set intervalstyle = 'iso_8601'; set extra_float_digits = 0; set bytea_output = 'escape'",
    );
    for (const value of values)
      await world.old.query(`insert into k${i} values (${value}, 1, 'first')`);
    await world.drain();
    await world.old.query(`update k${i} set v = 'second'; update k${i} set n = 2`);
    await world.drain();
    const text = `select k::text, n, v from k${i} order by 1`;
    const compare = async (url: string) =>
      withClient(url, async (client) => (await client.query(text)).rows);
    expect(await compare(newUrl), KEYS[i]?.[0]).toEqual(await compare(oldUrl));
    await world.old.query(`delete from k${i}`);
    await world.drain();
    expect(await compare(newUrl), KEYS[i]?.[0]).toEqual([]);
  }
});
