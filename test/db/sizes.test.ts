import { expect, test } from "vitest";
import { validatePlan } from "../../cli/validate.ts";
import { follow, openPair, rows } from "../support/followed-pair.ts";
import { mapping, testPlan } from "../support/sync-world.ts";

test("a table of 1,600 columns is followed", async () => {
  const columns = Array.from({ length: 1_599 }, (_, i) => `c${i} bool`).join(", ");
  const schema = `create table wide (id int primary key, ${columns})`;
  const urls = await openPair(schema, schema);
  const world = await follow(urls, [mapping("wide", "wide")]);
  await world.old.query("insert into wide (id, c0, c1598) values (1, true, false)");
  await world.drain();
  await world.old.query("update wide set c1598 = true");
  await world.drain();
  expect(await rows(world.new, "select id, c0, c1, c1598 from wide")).toEqual([
    ["1", "t", null, "t"],
  ]);
});

test("a way back for 1,600 columns is refused between two databases: its key has to travel beside them", async () => {
  const columns = Array.from({ length: 1_599 }, (_, i) => `c${i} bool`).join(", ");
  const schema = `create table wide (id int primary key, ${columns})`;
  const urls = await openPair(schema, schema);
  const mappings = [mapping("wide", "wide")];
  await expect(
    validatePlan(testPlan({ ...urls, forward: mappings, reverse: mappings })),
  ).rejects.toThrow(/1601 columns.*at most 1600/);
});

test("a value of 10 MB is followed", async () => {
  const schema = "create table t (id int primary key, v text, b bytea)";
  const urls = await openPair(schema, schema);
  const world = await follow(urls, [mapping("t", "t")]);
  await world.old.query(
    "insert into t values (1, repeat('a\u00fc,\"', 2000000), decode(repeat('00ff', 1000000), 'hex'))",
  );
  await world.drain();
  const digest = "select length(v), md5(v), length(b), md5(b) from t";
  expect(await rows(world.new, digest)).toEqual(await rows(world.old, digest));
});
