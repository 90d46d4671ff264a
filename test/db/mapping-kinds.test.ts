import { afterEach, expect, test } from "vitest";
import { validatePlan } from "../../cli/validate.ts";
import type { Direction } from "../../config/words.ts";
import { compareChunk } from "../../store/postgres/compare.ts";
import { syncChunk } from "../../store/postgres/sync-chunk.ts";
import { createDatabasePair, withClient } from "../support/databases.ts";
import { MAPPING_CASES, type MappingCase } from "../support/mapping-cases.ts";
import { SyncWorld } from "../support/sync-world.ts";

let open: SyncWorld | undefined;
afterEach(async () => {
  await open?.close();
  open = undefined;
});

const forward = MAPPING_CASES.flatMap((kind) => kind.forward);
const reverse = MAPPING_CASES.flatMap((kind) => kind.reverse);
const everything = { lo: null, hi: null };

/** Follows all kinds of mappings at once in one direction, in databases that may have been followed before. */
async function follow(
  urls: { oldUrl: string; newUrl: string },
  direction: Direction,
): Promise<SyncWorld> {
  await open?.close();
  open = await SyncWorld.open({ ...urls, forward, reverse }, direction);
  return open;
}

type Wanted = MappingCase["arrives"];

async function expectRows(
  client: SyncWorld["old"],
  wanted: (kind: MappingCase) => Wanted,
): Promise<void> {
  for (const kind of MAPPING_CASES) {
    const [sql, expected] = wanted(kind);
    const { rows } = await client.query({ text: sql, rowMode: "array" });
    expect(rows, kind.name).toEqual(expected);
  }
}

/** Everything that any source row should have made is there, and nothing else of theirs. */
async function expectClean({ engine }: SyncWorld): Promise<void> {
  for (const driver of engine.context.compiled.drivers) {
    const { differences } = await compareChunk(engine.context, driver, everything, () => true);
    expect(differences, driver.name).toEqual([]);
  }
}

async function copy({ engine }: SyncWorld): Promise<void> {
  for (const driver of engine.context.compiled.drivers)
    await syncChunk(engine.context, driver, { n: 0, version: 0, ...everything });
}

test("every kind of mapping, there and back: mirrored, copied, compared, round trip, mirrored in reverse", async () => {
  const urls = await createDatabasePair();
  for (const kind of MAPPING_CASES) {
    await withClient(urls.oldUrl, (client) => client.query(kind.old));
    await withClient(urls.newUrl, (client) => client.query(kind.new));
  }
  const there = await follow(urls, "forward");
  await validatePlan(there.plan);
  for (let round = 0; MAPPING_CASES.some(({ writes }) => round < writes.length); round += 1) {
    for (const { writes } of MAPPING_CASES)
      if (round < writes.length) await there.old.query(writes[round] ?? "");
    await there.drain();
    await expectClean(there);
  }
  await expectRows(there.new, (kind) => kind.arrives);

  const targets = [...new Set(forward.map(({ target }) => target))].join(", ");
  await there.new.query(`truncate ${targets}`);
  await copy(there);
  await expectRows(there.new, (kind) => kind.arrives);
  await copy(there);
  await expectClean(there);
  expect((await there.new.query("select * from crossfade.quarantine")).rows).toEqual([]);

  // What the new side makes of it is what the old side had.
  const before = new Map<string, unknown[]>();
  for (const { name, returns } of MAPPING_CASES)
    before.set(name, (await there.old.query({ text: returns[0], rowMode: "array" })).rows);
  const back = await follow(urls, "reverse");
  await expectClean(back);
  await copy(back);
  for (const { name, returns } of MAPPING_CASES)
    expect((await back.old.query({ text: returns[0], rowMode: "array" })).rows, name).toEqual(
      before.get(name),
    );

  for (const kind of MAPPING_CASES) await back.new.query(kind.back);
  await back.drain();
  await expectRows(back.old, (kind) => kind.returns);
  await expectClean(back);
  expect((await back.old.query("select * from crossfade.quarantine")).rows).toEqual([]);
});
