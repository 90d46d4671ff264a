import { expect, onTestFinished, test } from "vitest";
import { compareKeys } from "../../store/postgres/compare.ts";
import { groupKeys } from "../../store/postgres/key-groups.ts";
import type { Driver } from "../../store/postgres/mapping.ts";
import { follow, openPair, rows } from "../support/followed-pair.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

/** The only driving table of a world. */
function driverOf({ engine }: SyncWorld): Driver {
  const [driver] = engine.context.compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  return driver;
}

/** Text of `megabytes` that compresses away, so that the servers have little to do with it. */
const large = (megabytes: number) => `repeat('crossfade ', ${megabytes * 104_858})`;

test.for(["forward", "reverse"] as const)("%s: a row with 50 MB is followed", async (direction) => {
  const [type, value] =
    direction === "forward"
      ? ["text", `'"\\' || ${large(50)}`]
      : ["bytea", `convert_to(${large(50)}, 'UTF8')`];
  const schema = `create table t (id int primary key, v ${type})`;
  const urls = await openPair(schema, schema);
  const mappings = [mapping("t", "t")];
  const world = await SyncWorld.open({ ...urls, forward: mappings, reverse: mappings }, direction);
  onTestFinished(() => world.close());
  const [from, to] = direction === "forward" ? [world.old, world.new] : [world.new, world.old];
  await from.query(`insert into t values (1, ${value})`);
  await world.drain();
  const digest = "select id, length(v), md5(v) from t";
  expect(await rows(to, digest)).toEqual(await rows(from, digest));
  if (direction === "reverse") return; // comparing is the same, and takes as long again
  const { context } = world.engine;
  expect(await compareKeys(context, driverOf(world), [["1"], ["2"]], () => true)).toEqual({
    compared: 1,
    differences: [],
  });
});

test("a read that takes longer than the target's idle limit goes through: this process is alive", async () => {
  const schema = "create table t (id int primary key)";
  const urls = await openPair(schema, schema);
  const query = "select t.* from t cross join (select pg_sleep(5)) slow";
  const world = await follow(urls, [mapping("t", "t", { query })]);
  await world.engine.context.target.query("set idle_in_transaction_session_timeout = 4000");
  await world.old.query("insert into t values (1)");
  await world.drain();
  expect(await rows(world.new, "select id from t")).toEqual([["1"]]);
});

test("many large rows that change together are synced in parts that fit into memory, in one commit", async () => {
  const schema = "create table t (id int primary key, v text)";
  const urls = await openPair(schema, schema);
  const world = await follow(urls, [mapping("t", "t")]);
  const many = 48;
  await world.old.query(
    `insert into t select n, n || ${large(5)} from generate_series(1, ${many}) n`,
  );
  const { context } = world.engine;
  const keys = Array.from({ length: many }, (_, i) => [String(i + 1)]);
  const groups = await groupKeys(context, driverOf(world), keys);
  expect(groups.flat()).toEqual(keys);
  expect(Math.max(...groups.map((group) => group.length))).toBe(4);
  // The bound is proven; carrying all of them over would only take long.
  await world.old.query("delete from t where id > 24");
  await world.drain();
  const same = "select count(*), count(distinct xmin::text), sum(length(v)::bigint) from t";
  const [[count, commits, length] = []] = await rows(world.new, same);
  expect([count, commits]).toEqual(["24", "1"]);
  expect(length).toBe((await rows(world.old, same))[0]?.[2]);
});

test("small rows are synced together: nothing is split", async () => {
  const schema =
    "create table t (id int primary key, v text, j jsonb, b bytea, c varchar(10), n numeric[])";
  const urls = await openPair(schema, schema);
  const world = await follow(urls, [mapping("t", "t")]);
  await world.old.query(
    "insert into t select n, 'v', '{}', '\\x00', 'c', '{1}' from generate_series(1, 500) n",
  );
  const { context } = world.engine;
  const keys = Array.from({ length: 600 }, (_, i) => [String(i)]);
  expect(await groupKeys(context, driverOf(world), keys)).toEqual([keys]);
});
