import { expect, test } from "vitest";
import { drawChart } from "../../switchover/report/charts.ts";

const lag = (values: readonly (number | null)[]) => ({
  title: "Lag",
  unit: "ms",
  lines: [{ name: "lag", look: "plain" as const, values }],
});
const pathOf = (svg: string) => /class="line plain" d="([^"]*)"/.exec(svg)?.[1];

test("what is not known is a hole in the line, never a zero; a value alone is seen", () => {
  const svg = drawChart(lag([0, 10, null, 5, null, 10]), [0, 100, 200, 300, 400, 500], []);
  const heights = { 0: 148, 5: 83, 10: 18 };
  expect(pathOf(svg)).toBe(
    `M46 ${heights[0]}L147.2 ${heights[10]}M349.6 ${heights[5]}L349.6 ${heights[5]}M552 ${heights[10]}L552 ${heights[10]}`,
  );
  expect(svg).toContain('aria-label="Lag (ms). lag: from 0 to 10, at the end 10"');
});

test("hours of which nothing was recorded are no line across them", () => {
  const at = [0, 2, 4, 6, 8, 10, 5_000, 5_002];
  const path = pathOf(drawChart(lag(at.map(() => 1)), at, [])) ?? "";
  expect(path.match(/M/g)).toHaveLength(2);
  expect(pathOf(drawChart(lag([null, null]), [0, 2], []))).toBe("");
});

test("each phase is marked where it was entered, and named where there is room", () => {
  const stay = (phase: "dual-write" | "backfill" | "verify", from: number, to: number | null) => ({
    phase,
    from: new Date(from * 1000).toISOString(),
    to: to === null ? null : new Date(to * 1000).toISOString(),
    seconds: 0,
  });
  const at = [100, 200, 300, 400];
  const svg = drawChart(lag(at.map(() => 1)), at, [
    stay("dual-write", 90, 190),
    stay("backfill", 190, 200),
    stay("verify", 200, null),
  ]);
  expect([...svg.matchAll(/<title>([^<]+)</g)].map(([, name]) => name)).toEqual([
    "dual-write",
    "backfill",
    "verify",
  ]);
  expect([...svg.matchAll(/y="12">([^<]+)</g)].map(([, name]) => name)).toEqual([
    "dual-write",
    "verify",
  ]);
});
