import { describe, expect, test } from "vitest";
import { statusOf } from "../../switchover/api-commands.ts";
import { carriedColumn } from "../../switchover/column-sources.ts";
import { phaseFor, sumHeld } from "../../switchover/fleet.ts";
import { REQUESTS, LONG, QUICK, parseArgs } from "../../switchover/requests.ts";
import { etaSeconds } from "../../switchover/status.ts";
import { mayDo, parseTokens, roleOf } from "../../config/operator-tokens.ts";

test.each([
  ["id", "id"],
  ["ID", "id"],
  ['"Id"', "Id"],
  ['"a""b"', 'a"b'],
  ["orders.id", "id"],
  ['"id"::bigint', "id"],
  ["id::pg_catalog.int8", undefined],
  ["id + 1", undefined],
  ["md5(id)", undefined],
  ["'id'", undefined],
])("%s is the column %s, or computed", (expression, column) => {
  expect(carriedColumn(expression)).toBe(column);
});

describe("what sidecars held", () => {
  const held = (attempt: number, ...durations_ms: number[]) => {
    const report = {
      attempt,
      writes: durations_ms.length,
      failed: 1,
      durations_ms,
      max_ms: Math.max(...durations_ms),
    };
    return { stats: { held: report } };
  };

  test("is one distribution over all of them, of this attempt only", () => {
    const sum = sumHeld([held(4, 10, 30), held(4, 20), held(3, 900), { stats: {} }], 4);
    expect(sum).toEqual({ writes_held: 3, hold_ms: { max: 30, p50: 20, p99: 30 }, failed: 2 });
  });

  test("is zero where nobody held anything", () => {
    expect(sumHeld([{ stats: {} }], 4)).toEqual({
      writes_held: 0,
      hold_ms: { max: 0, p50: 0, p99: 0 },
      failed: 0,
    });
  });
});

test("a recovery finds the phase in the authority", () => {
  expect(phaseFor({ phase: "read-new" }, "new")).toBe("write-new");
  expect(phaseFor({ phase: "write-new" }, "old")).toBe("read-new");
  expect(phaseFor({ phase: "canary" }, "old")).toBe("canary");
});

test("the remaining time follows the rate so far, and is unknown before there is one", () => {
  const table = {
    table: "t",
    chunks: 4,
    done: 2,
    failed: 0,
    claimed: 0,
    rows: 2_000,
    estRows: 4_000,
    estRowsLeft: 2_000,
    ms: 10_000,
  };
  const dates = { startedAt: undefined, finishedAt: undefined, error: undefined };
  expect(etaSeconds({ ...table, ...dates })).toBe(10);
  expect(etaSeconds({ ...table, ...dates, done: 0 })).toBeNull();
  expect(etaSeconds({ ...table, ...dates, done: 4 })).toBe(0);
});

test("every command is either short or long, and arguments are checked by name", () => {
  expect([...QUICK, ...LONG].toSorted()).toEqual(Object.keys(REQUESTS).toSorted());
  expect(parseArgs("advance", {})).toEqual({ wait: false, dryRun: false, noWayBack: false });
  expect(() => parseArgs("advance", { too: "done" })).toThrow(/too/);
  expect(() => parseArgs("tune", { key: "speed", value: 1 })).toThrow(/key/);
});

test("roles include the ones before them; tokens are compared whole", () => {
  const tokens = parseTokens("viewer:aaaaaaaa, operator:bb:bbbbbb");
  expect(roleOf(tokens, "Bearer aaaaaaaa")).toBe("viewer");
  expect(roleOf(tokens, "bearer bb:bbbbbb")).toBe("operator");
  for (const wrong of [
    undefined,
    "",
    "aaaaaaaa",
    "Basic aaaaaaaa",
    "Bearer aaaaaaa",
    "Bearer aaaaaaaaa",
  ])
    expect(roleOf(tokens, wrong)).toBeUndefined();
  expect(mayDo("approver", "viewer")).toBe(true);
  expect(mayDo("viewer", "operator")).toBe(false);
});

test("what stands in the way is no failure of the server", () => {
  expect(statusOf("FLIP_UNDONE")).toBe(409);
  expect(statusOf("STALE")).toBe(409);
  expect(statusOf("REFUSED")).toBe(409);
  expect(statusOf("USAGE")).toBe(400);
  expect(statusOf("DATABASE_UNREACHABLE")).toBe(503);
  expect(statusOf("FLIP_UNKNOWN")).toBe(500);
});
