import { describe, expect, test } from "vitest";
import { NO_SERVER_LIMITS } from "../../config/server-limits.ts";
import { PHASES } from "../../config/words.ts";
import { NO_SHADOW } from "../../store/control/shadow-report.ts";
import type { VerifyRun } from "../../store/control/verify-runs.ts";
import {
  DRILL_GATES,
  GATES_OF,
  ROLLBACK_GATES_OF,
  blocks,
  describeGate,
  evaluateGates,
  gatesInto,
} from "../../switchover/gates.ts";
import type { GateFacts, GateLimits } from "../../switchover/gate-facts.ts";
import type { PlainGate } from "../../switchover/gates.ts";

const LIMITS: GateLimits = {
  lagMs: 1_000,
  verifyMaxAgeMs: 900_000,
  shadow: { sample: 0, samples: 100, mismatch: 0.01 },
  approvals: { "write-new": 2 },
  reverse: true,
  stayMs: {},
  windows: {},
  canary: { samples: 0, errors: 0, p99: 1 },
  drillMaxAgeMs: undefined,
  servers: NO_SERVER_LIMITS,
  diskFreeBytes: undefined,
};
const T = (seconds: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, seconds));

const CLEAN: VerifyRun = {
  id: 5,
  direction: "forward",
  epoch: 1,
  state: "clean",
  by: "anna",
  repair: true,
  tables: ["t"],
  allTables: true,
  error: undefined,
  roundTrip: undefined,
  startedAt: T(100),
  finishedAt: T(110),
  ageMs: 60_000,
  rows: 10,
  missing: 0,
  extra: 0,
  different: 0,
  inFlight: 0,
  hot: 0,
  repaired: 0,
};

const TABLE = {
  table: "t",
  chunks: 4,
  done: 4,
  failed: 0,
  claimed: 0,
  rows: 10,
  estRows: 10,
  estRowsLeft: 0,
  startedAt: T(0),
  finishedAt: T(50),
  ms: 50_000,
  error: undefined,
};

const SIDECAR = {
  id: "s1",
  epoch: 1,
  holdAttempt: undefined,
  inFlightWrites: 0,
  listen: "127.0.0.1:1",
  stats: {},
  seenMs: 500,
};

const MIRROR = {
  id: "m1",
  role: "mirror",
  seenMs: 300,
  stats: {
    direction: "forward",
    epoch: 1,
    lag_ms: 20,
    keys: 0,
    passes: 0,
    deferred: 0,
    state: "running",
    fence: "0",
  },
} as const;

/** Everything is well, in read-new, before a flip. */
const GOOD: GateFacts = {
  migration: {
    plan: "p",
    phase: "read-new",
    authority: "old",
    epoch: 1,
    readsNew: 1,
    canaryStep: 0,
    salt: "s",
    hold: undefined,
    lastAttempt: 0,
    paused: { backfill: false, mirror: false },
    throttle: {},
    gap: undefined,
    gapReport: 0,
    gapPlanned: 0,
    noWayBack: false,
    maintenance: undefined,
    read: { asked: 0, at: 0 },
    phaseSince: T(0),
    version: 9,
  },
  mirror: MIRROR,
  progress: [TABLE],
  clean: CLEAN,
  lastRun: CLEAN,
  quarantine: { open: 0, accepted: 0 },
  sidecars: [SIDECAR],
  approvals: [
    { phase: "write-new", name: "anna" },
    { phase: "write-new", name: "ben" },
  ],
  noWayBack: false,
  inPhaseMs: 60_000,
  now: T(0),
  drill: undefined,
  roundTrip: undefined,
  roundTripAccepted: false,
  servers: undefined,
  copy: undefined,
  deferred: [],
};

function gate(name: PlainGate, facts: Partial<GateFacts>, limits: Partial<GateLimits> = {}) {
  const [result] = evaluateGates(
    [name],
    "write-new",
    { ...GOOD, ...facts },
    { ...LIMITS, ...limits },
  );
  return result!;
}

test("with everything well every gate of every phase passes", () => {
  for (const phase of PHASES) {
    const blocking = gatesInto(phase, GOOD, LIMITS).filter((result) => result.state !== "pass");
    expect(blocking, phase).toEqual([]);
    for (const { name, why } of gatesInto(phase, GOOD, LIMITS))
      expect(why, name).toMatch(/\w+ \w+/);
  }
});

const INDEX = {
  kind: "index",
  schema: "public",
  table: "t",
  name: "i",
  definition: "",
  tablespace: "",
  comment: null,
  validated: true,
  state: "built",
  error: undefined,
} as const;
const UNPROVEN = {
  ...INDEX,
  kind: "foreign key",
  state: "unproven",
  error: "no such row",
} as const;

test.each([
  ["all is back", [INDEX], "verify", "pass", "never"],
  ["one is being built", [INDEX, { ...INDEX, state: "building" }], "verify", "fail", "by-waiting"],
  ["one cannot be built", [{ ...INDEX, state: "dropped", error: "no" }], "verify", "fail", "never"],
  ["a foreign key is not proven: verify repairs", [UNPROVEN], "verify", "pass", "never"],
  ["and nobody goes beyond before it is", [UNPROVEN], "shadow", "fail", "by-waiting"],
  ["nor reads from new", [{ ...INDEX, state: "dropped" }], "read-new", "fail", "by-waiting"],
] as const)("dropped for the copy: %s", (_, deferred, phase, state, heals) => {
  const found = gatesInto(phase, { ...GOOD, deferred }, LIMITS);
  expect(found.find(({ name }) => name === "rebuild")).toMatchObject({ state, heals });
});

const ASKED = { shadow: { sample: 0.1, samples: 100, mismatch: 0.01 } };
const shadowed = (samples: number, mismatches: number, seenMs = 500, unjudged = 0) => ({
  ...SIDECAR,
  seenMs,
  stats: { shadow: { ...NO_SHADOW, samples, mismatches, unjudged } },
});

test.each([
  ["nobody has compared", [SIDECAR], "unknown", "0 of 0 reads different"],
  ["too few", [shadowed(99, 0)], "unknown", "0 of 99 reads different"],
  [
    "enough on two sidecars",
    [shadowed(60, 1), shadowed(40, 0)],
    "pass",
    "1 of 100 reads different",
  ],
  ["too many differ", [shadowed(100, 2)], "fail", "2 of 100 reads different"],
  // No fence passes while a key is quarantined: whatever differs gets no verdict, and all that has one agrees.
  [
    "those that differ get no verdict",
    [shadowed(100, 0, 500, 2)],
    "unknown",
    "0 of 100 reads different",
  ],
  ["one got no verdict", [shadowed(100, 0, 500, 1)], "pass", "0 of 100 reads different"],
  ["what was not seen lately", [shadowed(100, 0, 6_000)], "unknown", "0 of 0 reads different"],
] as const)("shadow reads, %s: %s", (_name, sidecars, state, value) => {
  expect(gate("shadow", { sidecars }, ASKED)).toMatchObject({ state, value });
});

test("a plan that samples no reads requires none", () => {
  expect(gate("shadow", { sidecars: [] })).toMatchObject({
    state: "pass",
    why: "not required: shadow.sample is 0%",
  });
});

test("servers that were asked for and say nothing block, into every phase", () => {
  const servers = {
    transactionMs: 1,
    replicas: { lagMs: 1, old: 0, new: 0 },
    walBytes: 1,
    diskBytes: 1,
  };
  for (const said of [undefined, { old: "connection refused", new: "connection refused" }])
    for (const phase of PHASES) {
      const found = gatesInto(phase, { ...GOOD, servers: said }, { ...LIMITS, servers });
      const unknown = found.filter(({ state }) => state === "unknown").map(({ name }) => name);
      expect(unknown, phase).toEqual(["transactions", "replicas", "wal", "disk"]);
      expect(found.filter(blocks)).toHaveLength(4);
    }
});

test("no data is no success: without reports no gate that needs one passes", () => {
  const nothing: GateFacts = {
    ...GOOD,
    mirror: undefined,
    progress: [],
    clean: undefined,
    lastRun: undefined,
    quarantine: "new database: connection refused",
    sidecars: [],
    approvals: [],
  };
  const results = gatesInto("write-new", nothing, LIMITS);
  const passing = results.filter((result) => result.state === "pass").map((result) => result.name);
  expect(passing).toEqual(["gap", "reverse"]);
  for (const result of results.filter((each) => each.state !== "pass"))
    expect(result.why, result.name).toBeTruthy();
});

test("every phase past backfill asks for a complete copy, and every one past verify for a clean comparison", () => {
  for (const phase of ["verify", "shadow", "canary", "read-new", "write-new"] as const)
    expect(GATES_OF[phase]).toContain("backfill");
  for (const phase of ["shadow", "canary", "read-new", "write-new", "done"] as const)
    expect(GATES_OF[phase]).toContain("verify");
  for (const phase of ["write-new", "done"] as const)
    expect(GATES_OF[phase]).toEqual(expect.arrayContaining(["quarantine", "sidecars"]));
  expect(GATES_OF["write-new"]).toContain("reverse");
  expect(ROLLBACK_GATES_OF["write-new"]).toContain("quarantine");
  expect(ROLLBACK_GATES_OF["write-new"]).not.toContain("sidecars");
  expect(DRILL_GATES).toContain("sidecars");
});

describe("lag", () => {
  test.each([
    ["behind", { ...MIRROR, stats: { ...MIRROR.stats, lag_ms: 1_000 } }, "fail"],
    ["silent", { ...MIRROR, seenMs: 6_000 }, "unknown"],
    ["paused", { ...MIRROR, stats: { ...MIRROR.stats, state: "paused" as const } }, "unknown"],
    [
      "of another direction",
      { ...MIRROR, stats: { ...MIRROR.stats, direction: "reverse" as const } },
      "unknown",
    ],
    ["of an older epoch", { ...MIRROR, stats: { ...MIRROR.stats, epoch: 0 } }, "unknown"],
    ["absent", undefined, "unknown"],
    ["near", MIRROR, "pass"],
  ] as const)("a mirror that is %s", (_, mirror, expected) => {
    const result = gate("lag", { mirror });
    expect(result.state).toBe(expected);
    if (expected !== "pass") expect(result.heals).toBe("by-waiting");
  });
});

describe("backfill", () => {
  test("still copying heals by waiting, a failed chunk does not", () => {
    expect(
      gate("backfill", { progress: [TABLE, { ...TABLE, table: "u", done: 1 }] }),
    ).toMatchObject({
      state: "fail",
      value: "5 of 8 chunks",
      heals: "by-waiting",
    });
    expect(
      gate("backfill", { progress: [{ ...TABLE, done: 3, failed: 1, error: "bad date" }] }),
    ).toMatchObject({
      state: "fail",
      why: expect.stringContaining("bad date") as string,
      heals: "never",
    });
  });
});

describe("verify", () => {
  test.each([
    ["too old", { clean: { ...CLEAN, ageMs: 900_001 } }, "fail"],
    ["of another epoch", { clean: { ...CLEAN, epoch: 0 } }, "unknown"],
    [
      "begun before the last chunk was copied",
      { clean: { ...CLEAN, startedAt: T(49) } },
      "unknown",
    ],
    ["while chunks are copied", { progress: [{ ...TABLE, finishedAt: undefined }] }, "unknown"],
    ["missing", { clean: undefined, lastRun: undefined }, "unknown"],
    [
      "followed by a dirty one",
      { lastRun: { ...CLEAN, id: 6, state: "dirty" as const, missing: 2 } },
      "fail",
    ],
    [
      "followed by a dirty one of one table",
      { lastRun: { ...CLEAN, id: 6, state: "dirty" as const, allTables: false } },
      "pass",
    ],
    [
      "followed by one that runs",
      { lastRun: { ...CLEAN, id: 6, state: "running" as const } },
      "pass",
    ],
  ] as const)("a clean run %s", (_, facts, expected) => {
    const result = gate("verify", facts);
    expect(result.state).toBe(expected);
    if (expected !== "pass") expect(result.heals).toBe("by-verify");
  });

  test("after the flip the copy does not matter, the epoch does", () => {
    const migration = {
      ...GOOD.migration,
      phase: "write-new",
      authority: "new",
      epoch: 2,
    } as const;
    expect(gate("verify", { migration, progress: [] }).state).toBe("unknown");
    expect(
      gate("verify", {
        migration,
        progress: [],
        clean: { ...CLEAN, epoch: 2, direction: "reverse" },
      }).state,
    ).toBe("pass");
  });
});

describe("sidecars", () => {
  test.each([
    ["none", [], "unknown"],
    ["one silent", [SIDECAR, { ...SIDECAR, id: "s2", seenMs: 5_001 }], "fail"],
    ["one at an older epoch", [SIDECAR, { ...SIDECAR, id: "s2", epoch: 0 }], "fail"],
    ["all ready", [SIDECAR, { ...SIDECAR, id: "s2" }], "pass"],
  ] as const)("%s", (_, sidecars, expected) => {
    expect(gate("sidecars", { sidecars }).state).toBe(expected);
  });
});

test("quarantine: open keys block for good, accepted ones are named", () => {
  expect(gate("quarantine", { quarantine: { open: 3, accepted: 1 } })).toMatchObject({
    state: "fail",
    value: 3,
    heals: "never",
  });
  expect(gate("quarantine", { quarantine: { open: 0, accepted: 1 } })).toMatchObject({
    state: "pass",
    why: expect.stringContaining("1") as string,
  });
});

test("reverse: mapped, or confirmed", () => {
  expect(gate("reverse", {}, { reverse: false })).toMatchObject({ state: "fail", heals: "never" });
  expect(gate("reverse", { noWayBack: true }, { reverse: false }).state).toBe("pass");
});

test("approvals: distinct people, of this phase", () => {
  const twice = [
    { phase: "write-new", name: "anna" },
    { phase: "write-new", name: "anna" },
    { phase: "done", name: "ben" },
  ] as const;
  expect(gate("approvals", { approvals: twice })).toMatchObject({
    state: "fail",
    value: 1,
    limit: 2,
  });
});

test("an approval's reason is shown", () => {
  const approvals = [{ phase: "write-new" as const, name: "anna", reason: "drill at 40 ms" }];
  expect(gate("approvals", { approvals })).toMatchObject({
    state: "fail",
    why: expect.stringContaining("approved by anna (drill at 40 ms)") as string,
  });
});

test("a gap blocks, and after a flip without reverse nothing of the mirror is asked", () => {
  expect(gate("gap", { migration: { ...GOOD.migration, gap: "new was restored" } }).state).toBe(
    "fail",
  );
  const migration = { ...GOOD.migration, phase: "write-new", authority: "new", epoch: 2 } as const;
  const alone: GateFacts = {
    ...GOOD,
    migration,
    mirror: undefined,
    clean: undefined,
    quarantine: "away",
    sidecars: [{ ...SIDECAR, epoch: 2 }],
  };
  expect(
    gatesInto("done", alone, { ...LIMITS, reverse: false }).every(
      (result) => result.state === "pass",
    ),
  ).toBe(true);
});

test("a refusal reads like a sentence", () => {
  expect(
    describeGate(gate("lag", { mirror: { ...MIRROR, stats: { ...MIRROR.stats, lag_ms: 3_000 } } })),
  ).toBe("lag: fail, 3000 ms (limit 1000 ms): the mirror is behind");
});

describe("round-trip, before going back from write-new", () => {
  const proved = (failed: number): GateFacts => ({
    ...GOOD,
    roundTrip: {
      ...CLEAN,
      direction: "reverse",
      roundTrip: { compared: 10, failed, examples: [], error: null },
    },
  });
  const tripGate = (facts: GateFacts) =>
    evaluateGates(["round-trip"], "write-new", facts, LIMITS)[0]!;

  test("rows that do not come back stand in the way until a person accepts them", () => {
    expect(tripGate(proved(2))).toMatchObject({ state: "fail", value: "2 rows" });
    expect(blocks(tripGate(proved(2)))).toBe(true);
    expect(tripGate({ ...proved(2), roundTripAccepted: true })).toMatchObject({ state: "pass" });
    expect(tripGate(proved(0))).toMatchObject({ state: "pass", samples: 10 });
  });

  test("without a proof it is unknown, and the way back stays open; every other gate blocks then", () => {
    expect(tripGate(GOOD)).toMatchObject({ state: "unknown" });
    expect(blocks(tripGate(GOOD))).toBe(false);
    expect(blocks({ ...tripGate(GOOD), name: "lag" })).toBe(true);
  });
});
