import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { brokenText, judgeBudget, loadBudget } from "../../loadtest/load/budget.ts";
import { renderPage } from "../../loadtest/load/page.ts";
import { type Cell, type Figures, type LoadReport, ratiosOf } from "../../loadtest/load/report.ts";

const folder = mkdtempSync(join(tmpdir(), "crossfade-budget-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const figures = (p99_ms: number, more: Partial<Figures> = {}): Figures => ({
  requests: 100,
  errors: 0,
  rounds: [100],
  rate: 100,
  p50_ms: 1,
  p90_ms: 1,
  p99_ms,
  p999_ms: p99_ms,
  max_ms: p99_ms,
  curve: [
    [0, 0.5],
    [0.5, 1],
    [0.99, p99_ms],
  ],
  ...more,
});
const cell = (more: Partial<Cell> = {}): Cell => ({
  phase: "canary",
  workload: "read",
  mode: "rate",
  direct: figures(2),
  through: figures(3),
  ...more,
});
const budgetOf = (text: string) => {
  const file = join(folder, "budget.yaml");
  writeFileSync(file, text);
  return loadBudget(file);
};
const broken = (text: string, cells: readonly Cell[]) =>
  judgeBudget(budgetOf(text), cells).broken.map(brokenText);

describe("a budget", () => {
  test("is kept at its limit and broken above it, by name", () => {
    expect(broken("limits: [{ p99_ratio: 1.5, errors: 0 }]", [cell()])).toEqual([]);
    expect(broken("limits: [{ p99_ratio: 1.4 }]", [cell()])).toEqual([
      "limits[0].p99_ratio: found 1.5 in canary, read, at a fixed rate, expected at most 1.4",
    ]);
  });

  test("asks throughput of saturation alone, and at least", () => {
    const full = cell({ mode: "saturation", through: figures(3, { rate: 55 }) });
    expect(broken("limits: [{ throughput_ratio: 0.5 }]", [cell(), full])).toEqual([]);
    expect(broken("limits: [{ throughput_ratio: 0.6 }]", [cell(), full])).toEqual([
      "limits[0].throughput_ratio: found 0.55 in canary, read, at saturation, expected at least 0.6",
    ]);
  });

  test("counts errors of both ways and both modes", () => {
    const wrong = cell({ mode: "saturation", direct: figures(2, { errors: 2 }) });
    expect(broken("limits: [{ errors: 1 }]", [cell(), wrong])).toEqual([
      "limits[0].errors: found 2 in canary, read, at saturation, expected at most 1",
    ]);
  });

  test("is broken by what was not measured", () => {
    expect(broken("limits: [{ phase: shadow, errors: 0 }]", [cell()])).toEqual([
      "limits[0].errors: nothing it names was measured, expected at most 0",
    ]);
    expect(broken("limits: [{ p99_ratio: 9 }]", [cell({ through: null })])).toEqual([
      "limits[0].p99_ratio: found no figure in canary, read, at a fixed rate, expected at most 9",
    ]);
    const silent = cell({ through: figures(Number.NaN, { requests: 0 }) });
    expect(broken("limits: [{ p99_ratio: 9, errors: 5 }]", [silent])).toHaveLength(2);
  });

  test.each([
    ["limits: []", "limits: found an empty list"],
    ["limits: [{ phase: canary }]", "limits[0]: found no limit"],
    ["limits: [{ p99_ratio: -1 }]", "limits[0].p99_ratio"],
    ["limits: [{ p99_ratoi: 2, errors: 0 }]", "limits[0].p99_ratoi"],
    ["limits: [{ phase: canari, errors: 0 }]", 'limits[0].phase: found "canari"'],
    ["[]", "(budget)"],
  ])("that does not hold says where: %s", (text, message) => {
    expect(() => budgetOf(text)).toThrow(message);
  });
});

test("ratios need both ways", () => {
  expect(ratiosOf(cell()).p99).toBe(1.5);
  expect(ratiosOf(cell({ through: null })).p99).toBeNull();
});

test("the page loads nothing and nothing of the data ends its script", () => {
  const report: LoadReport = {
    loadtest: "target",
    machine: "</script><b>x</b>",
    started_at: "2026-01-01T00:00:00.000Z",
    seconds: 1,
    rounds: 1,
    rate: 100,
    connections: 10,
    target: "http://127.0.0.1:1/</script><img src=http://a.example>",
    cells: [{ ...cell(), ratios: ratiosOf(cell()) }],
    flips: null,
    checked: null,
    budget: judgeBudget(budgetOf("limits: [{ p99_ratio: 1.4 }]"), [cell()]),
  };
  const page = renderPage(report);
  expect(page).not.toMatch(/<(script|img|link|iframe)[^>]*\b(src|href)\s*=/i);
  expect(page).not.toMatch(/@import|url\(\s*['"]?(https?:)?\/\//i);
  expect(page).not.toMatch(/\bfetch\(|XMLHttpRequest|\bimport\(/);
  expect(page).toContain("default-src 'none'");
  expect(page.match(/<\/script>/g)).toHaveLength(3);
  expect(page).toContain("canary, read, at a fixed rate");
  expect(page).toContain("limits[0].p99_ratio");
});
