import { afterEach, expect, test } from "vitest";
import { retryQuarantined } from "../../backfill/retry.ts";
import { acceptLoss, listQuarantine } from "../../store/postgres/quarantine.ts";
import { syncChunk } from "../../store/postgres/sync-chunk.ts";
import { silentLog } from "../support/control.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { mapping, SyncWorld } from "../support/sync-world.ts";

const worlds: SyncWorld[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.close();
});

/** Two rows are left behind: 7 the mapping rejects, 8 the target refuses. */
async function openWorld(): Promise<SyncWorld> {
  const urls = await createDatabasePair();
  const table = "create table t (id numeric primary key, note text";
  await withClient(urls.oldUrl, (client) =>
    client.query(`${table}); create table words (id int primary key, word text)`),
  );
  await withClient(urls.newUrl, (client) => client.query(`${table} check (note <> 'refused'))`));
  const forward = [
    mapping("t", "t", {
      query:
        "select t.id, coalesce(w.word, t.note) as note from t left join words w on w.id = t.id",
      also: { words: "id::numeric" },
      reject: new Map([["not wanted", "note like 'rejected%'"]]),
    }),
  ];
  const world = await SyncWorld.open({ ...urls, forward });
  worlds.push(world);
  await world.old.query("insert into t values (7.0, 'rejected'), (8, 'refused'), (9, 'fine')");
  await world.drain();
  return world;
}

async function entries(world: SyncWorld) {
  const rows = await listQuarantine(world.engine.context.target, "forward");
  return rows.map(({ id, key, state }) => ({ id, key: key.join(), state }));
}

/** A named person accepts what is in quarantine now. Returns the entries. */
async function acceptAll(world: SyncWorld) {
  for (const { id } of await entries(world))
    expect(await acceptLoss(world.engine.context.target, id, "Ada", "test accounts")).toBe(true);
  return entries(world);
}

async function copyAgain(world: SyncWorld): Promise<void> {
  const { context } = world.engine;
  const [driver] = context.compiled.drivers;
  if (driver === undefined) throw new Error("no driver");
  await syncChunk(context, driver, { n: 0, lo: null, hi: null, version: 0 });
}

test("an acceptance holds while the row stays as it is, however often it is tried again", async () => {
  const world = await openWorld();
  const accepted = await acceptAll(world);
  expect(accepted.map(({ key, state }) => [key, state])).toEqual([
    ["7.0", "accepted"],
    ["8", "accepted"],
  ]);
  await copyAgain(world);
  await world.old.query("update t set note = note; update t set id = id");
  await world.drain();
  expect(await entries(world)).toEqual(accepted);
  const { rows } = await world.new.query(
    "select accepted_by, accepted_reason from crossfade.quarantine",
  );
  expect(rows).toEqual(
    Array.from({ length: 2 }, () => ({ accepted_by: "Ada", accepted_reason: "test accounts" })),
  );
});

test("an acceptance does not cover a row that changed since, and what was listed before cannot be accepted any more", async () => {
  const world = await openWorld();
  const accepted = await acceptAll(world);
  await world.old.query("update t set note = 'rejected again' where id = 7");
  await world.drain();
  const [seven, eight] = (await entries(world)).toSorted((a, b) => a.key.localeCompare(b.key));
  expect(seven).toMatchObject({ key: "7.0", state: "quarantined" });
  expect(eight).toEqual(accepted[1]);
  const target = world.engine.context.target;
  expect(await acceptLoss(target, accepted[0]?.id ?? "", "Ada", "what I saw")).toBe(false);
  // What the mapping reads of another table is a part of the row.
  await world.old.query("insert into words values (8, 'refused')");
  await world.drain();
  expect((await entries(world)).find(({ key }) => key === "8")).toEqual(accepted[1]);
  await world.old.query("update words set word = 'rejected otherwise'");
  await world.drain();
  expect((await entries(world)).map(({ state }) => state)).toEqual(["quarantined", "quarantined"]);
});

test("a copy finds a change that the mirror has not brought: its acceptance does not cover it either", async () => {
  const world = await openWorld();
  await acceptAll(world);
  await world.old.query("update t set note = 'rejected anew' where id = 7");
  await copyAgain(world);
  expect(
    (await entries(world))
      .map(({ key, state }) => [key, state])
      .toSorted(([a = ""], [b = ""]) => a.localeCompare(b)),
  ).toEqual([
    ["7.0", "quarantined"],
    ["8", "accepted"],
  ]);
});

test("a row that heals leaves quarantine, accepted or not", async () => {
  const world = await openWorld();
  await acceptAll(world);
  await world.old.query("update t set note = 'fine' where id = 7; delete from t where id = 8");
  await world.drain();
  expect(await entries(world)).toEqual([]);
});

test("a fence counts as passed once the loss of what it covers is accepted", async () => {
  const world = await openWorld();
  const passed = async () => {
    const fence = await world.feed.writeFence();
    await world.drain();
    const { rows } = await world.new.query<{ fence: string }>(
      "select fence from crossfade.position",
    );
    return BigInt(rows[0]?.fence ?? 0) >= fence;
  };
  expect(await passed()).toBe(false);
  await acceptAll(world);
  expect(await passed()).toBe(true);
});

test("retry after the plan was edited heals what the old plan refused, and leaves what is accepted", async () => {
  const world = await openWorld();
  const retry = (forward: Parameters<typeof mapping>[2]) =>
    retryQuarantined({
      plan: { ...world.plan, forward: { kind: "tables", mappings: [mapping("t", "t", forward)] } },
      log: silentLog,
      direction: "forward",
      epoch: 1,
      ids: undefined,
    });
  expect(await retry({ reject: new Map([["not wanted", "note like 'rejected%'"]]) })).toBe(2);
  expect((await entries(world)).map(({ state }) => state)).toEqual(["quarantined", "quarantined"]);
  const eight = (await entries(world)).find(({ key }) => key === "8");
  await acceptLoss(world.engine.context.target, eight?.id ?? "", "Ada", "gone anyway");
  expect(await retry({ set: new Map([["note", "upper(note)"]]) })).toBe(1);
  expect((await entries(world)).map(({ key, state }) => [key, state])).toEqual([["8", "accepted"]]);
  const { rows } = await world.new.query("select note from t order by id");
  expect(rows.map(({ note }: { note?: string }) => note)).toEqual(["REJECTED", "fine"]);
});
