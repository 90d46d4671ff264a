import { beforeAll, describe, expect, test } from "vitest";
import {
  claimChunk,
  claimChunks,
  failChunk,
  finishChunks,
  progress,
  readChunks,
  releaseChunk,
  renewLease,
  replaceChunks,
  resetChunks,
} from "../../store/control/chunk-ledger.ts";
import {
  finishVerifyRun,
  lastVerifyRun,
  readVerifyExamples,
  recordVerifyChunk,
  startVerifyRun,
} from "../../store/control/verify-runs.ts";
import { freshStore } from "../support/control.ts";
import { createSingleDatabase } from "../support/databases.ts";

let database: string;

beforeAll(async () => {
  database = await createSingleDatabase();
});

describe("chunk ledger", () => {
  const ranges = (count: number) =>
    Array.from({ length: count }, (_, n) => ({
      n,
      lo: n === 0 ? undefined : [`k"${n}`, "é\\"],
      hi: n === count - 1 ? undefined : [`k"${n + 1}`, "é\\"],
      estRows: 10,
      planVersion: 1,
    }));

  test("concurrent workers take every chunk exactly once, tables in order", async () => {
    const store = await freshStore(database);
    await replaceChunks(store, "forward", "a_child", ranges(7), 1);
    await replaceChunks(store, "forward", "b_parent", ranges(5), 0);
    expect(await readChunks(store, "forward", "b_parent")).toEqual(ranges(5));
    const work = async (worker: string) => {
      const taken: string[] = [];
      for (let chunk = await claimChunk(store, "forward", worker, 60_000); chunk !== undefined;) {
        taken.push(`${chunk.table}/${chunk.n}`);
        expect(await finishChunks(store, [chunk], { rows: 10, ms: 1 })).toBe(1);
        chunk = await claimChunk(store, "forward", worker, 60_000);
      }
      return taken;
    };
    const first = await claimChunk(store, "forward", "w0", 60_000);
    expect(first).toMatchObject({ table: "b_parent", n: 0, lo: undefined });
    await releaseChunk(store, first!);
    const taken = (await Promise.all(["w1", "w2", "w3", "w4", "w5", "w6"].map(work))).flat();
    expect(taken).toHaveLength(12);
    expect(new Set(taken).size).toBe(12);
    expect(await progress(store, "forward")).toMatchObject([
      { table: "b_parent", chunks: 5, done: 5, rows: 50, estRows: 50, estRowsLeft: 0 },
      { table: "a_child", chunks: 7, done: 7, rows: 70, finishedAt: expect.any(Date) },
    ]);
    expect(await progress(store, "reverse")).toEqual([]);
  });

  test("an expired lease is claimable, and its late worker is fenced off", async () => {
    const store = await freshStore(database);
    await replaceChunks(store, "forward", "t", ranges(1));
    const late = (await claimChunk(store, "forward", "slow", -1))!;
    const next = (await claimChunk(store, "forward", "slow", 60_000))!;
    expect(next).toMatchObject({ n: 0, attempt: 2 });
    expect(await renewLease(store, late, 60_000)).toBe(false);
    expect(await finishChunks(store, [late], { rows: 1, ms: 1 })).toBe(0);
    expect(await renewLease(store, next, 60_000)).toBe(true);
    expect(await claimChunk(store, "forward", "other", 60_000)).toBeUndefined();
    expect(await finishChunks(store, [next], { rows: 1, ms: 1 })).toBe(1);
  });

  test("neighbours finished together share out what they held; one taken over meanwhile is not counted", async () => {
    const store = await freshStore(database);
    await replaceChunks(store, "forward", "t", ranges(3));
    const claim = { direction: "forward", worker: "w", most: () => 3 } as const;
    const late = await claimChunks(store, { ...claim, leaseMs: -1 });
    expect(late).toHaveLength(3);
    const other = (await claimChunk(store, "forward", "other", 60_000))!;
    expect(await finishChunks(store, late, { rows: 11, ms: 30 })).toBe(2);
    expect(await progress(store, "forward")).toMatchObject([{ done: 2, rows: 6 }]);
    expect(await finishChunks(store, [other], { rows: 5, ms: 10 })).toBe(1);
    expect(await progress(store, "forward")).toMatchObject([{ done: 3, rows: 11 }]);
  });

  test("a chunk that keeps failing stays failed until it is reset", async () => {
    const store = await freshStore(database);
    await replaceChunks(store, "forward", "t", ranges(1));
    for (let attempt = 1; attempt <= 2; attempt += 1) {
      const chunk = (await claimChunk(store, "forward", "w", 60_000))!;
      expect(await failChunk(store, chunk, "no such column", 2)).toBe(true);
    }
    expect(await claimChunk(store, "forward", "w", 60_000)).toBeUndefined();
    expect(await progress(store, "forward")).toMatchObject([
      { failed: 1, done: 0, error: "no such column" },
    ]);
    expect(await resetChunks(store, "forward", { onlyFailed: true })).toBe(1);
    expect(await claimChunk(store, "forward", "w", 60_000)).toMatchObject({ attempt: 1 });
  });

  test("planning again replaces what was there", async () => {
    const store = await freshStore(database);
    await replaceChunks(store, "forward", "t", ranges(6));
    await finishChunks(store, [(await claimChunk(store, "forward", "w", 60_000))!], {
      rows: 1,
      ms: 1,
    });
    await replaceChunks(store, "forward", "t", ranges(2));
    expect(await progress(store, "forward")).toMatchObject([{ chunks: 2, done: 0, rows: 0 }]);
  });
});

describe("verify runs", () => {
  const none = { missing: 0, extra: 0, different: 0, inFlight: 0, hot: 0, repaired: 0 };

  test("sums its chunks; clean only if nothing differs and nothing failed", async () => {
    const store = await freshStore(database);
    const open = async (allTables = true) =>
      (await startVerifyRun(store, {
        direction: "forward",
        by: "anna",
        repair: false,
        tables: ["t"],
        allTables,
      }))!;
    const example = { kind: "missing", key: { id: "5" } } as const;
    const dirty = await open();
    await recordVerifyChunk(store, dirty, {
      ...none,
      table: "t",
      n: 0,
      rows: 10,
      missing: 1,
      examples: [example],
      ms: 1,
    });
    await recordVerifyChunk(store, dirty, {
      ...none,
      table: "t",
      n: 1,
      rows: 5,
      inFlight: 2,
      examples: [],
      ms: 1,
    });
    expect(await finishVerifyRun(store, dirty)).toMatchObject({
      state: "dirty",
      rows: 15,
      missing: 1,
      inFlight: 2,
    });
    expect(await readVerifyExamples(store, dirty)).toEqual([{ table: "t", ...example }]);
    const clean = await open();
    await recordVerifyChunk(store, clean, {
      ...none,
      table: "t",
      n: 0,
      rows: 10,
      examples: [],
      ms: 1,
    });
    expect(await finishVerifyRun(store, clean)).toMatchObject({ state: "clean", rows: 10 });
    await finishVerifyRun(store, await open(), "a range was not read");
    expect(await finishVerifyRun(store, await open())).toMatchObject({
      state: "failed",
      error: "not compared: t",
    });
    const partly = await open(false);
    await recordVerifyChunk(store, partly, {
      ...none,
      table: "t",
      n: 0,
      rows: 0,
      examples: [],
      ms: 1,
    });
    await finishVerifyRun(store, partly);
    expect(await lastVerifyRun(store, "forward")).toMatchObject({
      state: "clean",
      allTables: false,
    });
    expect(await lastVerifyRun(store, "forward", { onlyClean: true })).toMatchObject({ id: clean });
    const left = await open();
    await open();
    expect(await finishVerifyRun(store, left)).toMatchObject({
      state: "failed",
      error: "interrupted",
    });
    expect(await lastVerifyRun(store, "reverse")).toBeUndefined();
  });
});
