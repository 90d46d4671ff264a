import { afterEach, expect, test } from "vitest";
import { validatePlan } from "../../cli/validate.ts";
import { compareChunk } from "../../store/postgres/compare.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, SyncWorld, testPlan } from "../support/sync-world.ts";
import { syncChunk } from "../../store/postgres/sync-chunk.ts";

const worlds: SyncWorld[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close();
});

/** An old log that nothing keeps unique, made into a table with a key. `full`: the wal feed needs the values before a change. */
const OLD =
  "create table log (day date not null, n int not null, note text, maybe int); alter table log replica identity full";
const NEW = "create table log (day date, n int, note text, primary key (day, n))";

async function openPair(old = OLD, next = NEW) {
  const urls = await createDatabasePair();
  await withClient(urls.oldUrl, (client) => client.query(old));
  await withClient(urls.newUrl, (client) => client.query(next));
  return urls;
}

const keyed = (...key: string[]) => mapping("log", "log", { key });
const rows = async (client: SyncWorld["old"]) =>
  (await client.query({ text: "select n, note from log order by n", rowMode: "array" })).rows;

test("rows of a table without any index are followed, copied and compared by the key that the plan names", async () => {
  const urls = await openPair();
  const world = await SyncWorld.open({ ...urls, forward: [keyed("day", "n")] });
  worlds.push(world);
  await world.old.query(
    "insert into log select '2020-02-29', n, 'note ' || n from generate_series(1, 6) n",
  );
  await world.drain();
  await world.old.query(
    "update log set note = 'changed' where n = 1; update log set n = 20 where n = 2; delete from log where n = 3",
  );
  await world.drain();
  const expected = [
    ["1", "changed"],
    ["4", "note 4"],
    ["5", "note 5"],
    ["6", "note 6"],
    ["20", "note 2"],
  ];
  expect(await rows(world.new)).toEqual(expected);
  await world.new.query("delete from log where n = 4; update log set note = 'wrong' where n = 5");
  const { context } = world.engine;
  const [driver] = context.compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  const all = { lo: null, hi: null };
  const compared = await compareChunk(context, driver, all, () => true);
  expect(
    compared.differences
      .map(({ kind, key }) => [kind, ...key])
      .toSorted(([a = ""], [b = ""]) => a.localeCompare(b)),
  ).toEqual([
    ["different", "2020-02-29", "5"],
    ["missing", "2020-02-29", "4"],
  ]);
  await syncChunk(context, driver, { n: 0, version: 0, ...all });
  expect(await rows(world.new)).toEqual(expected);
});

test("rows that become alike while the migration runs stand in quarantine until they differ again", async () => {
  const urls = await openPair();
  const world = await SyncWorld.open({ ...urls, forward: [keyed("day", "n")] });
  worlds.push(world);
  await world.old.query(
    "insert into log values ('2020-02-29', 1, 'one'), ('2020-02-29', 2, 'two')",
  );
  await world.drain();
  await world.old.query("update log set n = 2 where n = 1");
  await world.drain();
  const { rows: left } = await world.new.query(
    "select key::text, state, reason from crossfade.quarantine",
  );
  expect(left).toEqual([
    {
      key: "{2020-02-29,2}",
      state: "quarantined",
      reason: "the table has more than one row for this key",
    },
  ]);
  // A copy of the table sees it too, and chooses none of them.
  const [driver] = world.engine.context.compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  await world.new.query("delete from log where n = 2");
  const copied = await syncChunk(world.engine.context, driver, {
    n: 0,
    lo: null,
    hi: null,
    version: 0,
  });
  expect(copied).toMatchObject({ refused: 1 });
  expect(await rows(world.new)).toEqual([]);
  await world.old.query("update log set n = 3 where note = 'one'");
  await world.drain();
  expect(await rows(world.new)).toEqual([
    ["2", "two"],
    ["3", "one"],
  ]);
  expect((await world.new.query("select from crossfade.quarantine")).rows).toEqual([]);
});

test("a key that does not tell rows apart is refused beforehand, each with its reason", async () => {
  const urls = await openPair(
    `${OLD}; insert into log values ('2020-02-29', 1), ('2020-02-29', 1), ('2020-02-29', 2)`,
  );
  const refused = (forward: Parameters<typeof testPlan>[0]["forward"]) =>
    expect(validatePlan(testPlan({ ...urls, forward }))).rejects;
  await refused([keyed("day", "n")]).toThrow(
    /test\.log\.from\.key.*2 rows have \(day, n\) = \(2020-02-29, 1\)/,
  );
  await refused([keyed("day", "maybe")]).toThrow(
    /column maybe of log may be null.*alter column .*maybe.* set not null/,
  );
  await refused([keyed("day", "nothing")]).toThrow(
    /log has no column nothing; it has: day, n, note, maybe/,
  );
  await refused([keyed("day", "day")]).toThrow(/names a column twice/);
  await refused([keyed("day", "n"), { ...keyed("n"), path: "test.log[1]" }]).toThrow(
    /differs from \(day, n\)/,
  );
  await refused([mapping("log", "log")]).toThrow(/from: \{ table: log, key: \[column\] \}/);
});

test("a table with a key of its own takes no other, and a table without one is not written to", async () => {
  const urls = await openPair();
  const refused = (reverse: Parameters<typeof mapping>[2]) =>
    expect(
      validatePlan(
        testPlan({
          ...urls,
          forward: [keyed("day", "n")],
          reverse: [mapping("log", "log", reverse)],
        }),
      ),
    ).rejects;
  await refused({ key: ["n"] }).toThrow(/log has a key of its own, \(day, n\): leave `key` out/);
  await refused({}).toThrow(/rows are written by that key: create a unique index/);
});
