import { expect, test } from "vitest";
import { install } from "../../store/control/schema.ts";
import { addPoint, readSeries } from "../../store/control/series.ts";
import type { SeriesPoint } from "../../store/control/series.ts";
import { openTestStore } from "../support/control.ts";
import { createSingleDatabase } from "../support/databases.ts";

function point(at: number, p99: number, reads: number | null = 0.01): SeriesPoint {
  const side = { requests_per_s: 10, errors_per_s: 0.5, p50_ms: 1, p99_ms: p99 };
  const nobody = { requests_per_s: null, errors_per_s: null, p50_ms: null, p99_ms: null };
  return { at, lag_ms: 1.25, keys_per_s: 10, reads_new: reads, old: side, new: nobody };
}

test("the series outlives processes, stays small, covers the whole migration, and no spike is joined away", async () => {
  const store = openTestStore(await createSingleDatabase());
  expect((await readSeries(store, "all")).at).toEqual([]);
  await install(store);
  const now = Math.floor(Date.now() / 2_000) * 2;
  const first = now - 30 * 86_400;
  // A month, as it was recorded by the second: far more than may stay.
  await store.pool.query(
    `insert into ${store.table("series")} (at, old_requests_per_s, old_p99_ms, lag_ms)
     select at, 10, case when at = $3::bigint then 900 else 5 end, 1 from generate_series($1::bigint, $2::bigint, 20) at`,
    [first, now - 400, first + 1_000_000],
  );
  // Two controllers at the same moment: one point.
  await addPoint(store, point(now, 7));
  await addPoint(store, point(now + 1, 8, null));
  await addPoint(store, point(now - 2, 6, null));

  const recent = await readSeries(store, "recent");
  expect(recent.at).toEqual([now - 2, now]);
  expect(recent.old.p99_ms).toEqual([6, 7]);
  expect(recent.new.p99_ms).toEqual([null, null]);
  expect(recent.reads_new).toEqual([null, 0.01]);

  const all = await readSeries(store, "all");
  expect(all.at.length).toBeGreaterThan(200);
  expect(all.at.length).toBeLessThanOrEqual(502);
  expect(all.at[0]).toBeLessThan(first + 86_400);
  expect(all.at).toEqual(all.at.toSorted((a, b) => a - b));
  expect(all.old.p99_ms.filter((value) => value === 900)).toHaveLength(1);
  expect(all.old.requests_per_s.every((value) => value === 10)).toBe(true);

  const few = await readSeries(store, "all", 50);
  expect(few.at.length).toBeLessThanOrEqual(50);
  expect(few.at.at(-1)).toBe(now);
  expect(few.old.p99_ms.filter((value) => value === 900)).toHaveLength(1);
  expect(few.reads_new.at(-1)).toBe(0.01);
});

test("a mean weighs what it joins by how many samples that stands for", async () => {
  const store = openTestStore(await createSingleDatabase());
  await install(store);
  await store.pool.query(
    `insert into ${store.table("series")} (at, samples, keys_per_s) values (1000, 3, 10), (1002, 1, 50), (1004, 1, null)`,
  );
  expect((await readSeries(store, "all", 1)).keys_per_s).toEqual([20]);
});
