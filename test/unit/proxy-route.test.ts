import { describe, expect, test } from "vitest";
import { PHASES } from "../../config/words.ts";
import type { Phase, RouteKind, Side } from "../../config/words.ts";
import { fenceFor, isMirrored, route, wantedShare } from "../../proxy/route.ts";
import type { RouteFacts, Standing } from "../../proxy/route.ts";

const BASE = {
  epoch: 3,
  salt: "s",
  hold: null,
  lagging: false,
  maintenance: null,
  readsNew: 0.5,
} as const;
const AUTHORITY: Record<Phase, Side> = {
  off: "old",
  "dual-write": "old",
  backfill: "old",
  verify: "old",
  shadow: "old",
  canary: "old",
  "read-new": "old",
  "write-new": "new",
  done: "new",
};

function facts(phase: Phase, kind: RouteKind, more: Partial<RouteFacts> = {}): RouteFacts {
  const state = { ...BASE, phase, authority: AUTHORITY[phase] };
  return {
    state,
    kind,
    pin: undefined,
    bucket: 0.2,
    share: 1,
    standing: "passed",
    holding: false,
    ...more,
  };
}

type Cell = { read: Side; outside: Side; unpassed: Side; shut: Side; write: Side; stream: Side };
const old: Cell = {
  read: "old",
  outside: "old",
  unpassed: "old",
  shut: "old",
  write: "old",
  stream: "old",
};
const fresh: Cell = {
  read: "new",
  outside: "new",
  unpassed: "new",
  shut: "new",
  write: "new",
  stream: "new",
};

/** For each phase: a read in the share, outside of it, with a fence not passed, with the gate shut; a write; a stream. */
const TABLE: Record<Phase, Cell> = {
  off: old,
  "dual-write": old,
  backfill: old,
  verify: old,
  shadow: old,
  canary: { ...old, read: "new" },
  "read-new": { ...old, read: "new", outside: "new" },
  "write-new": fresh,
  done: fresh,
};

test.each(PHASES)("%s: every kind goes where the table says", (phase) => {
  const side = (kind: RouteKind, more: Partial<RouteFacts> = {}) =>
    route(facts(phase, kind, more)).side;
  expect({
    read: side("read"),
    outside: side("read", { bucket: 0.9 }),
    unpassed: side("read", { standing: "unpassed" }),
    shut: side("read", { share: 0 }),
    write: side("write"),
    stream: side("stream"),
  }).toEqual(TABLE[phase]);
});

describe.each(PHASES)("%s", (phase) => {
  test.each(["read", "write", "stream"] as const)("a pinned %s goes where it is pinned", (kind) => {
    for (const standing of ["passed", "unpassed"] satisfies Standing[]) {
      expect(route(facts(phase, kind, { pin: "old", standing })).side).toBe("old");
      expect(route(facts(phase, kind, { pin: "new", standing })).side).toBe("new");
      expect(route(facts(phase, kind, { pin: "authority", standing })).side).toBe(AUTHORITY[phase]);
    }
  });

  test("only writes are held", () => {
    for (const kind of ["read", "write", "stream"] as const) {
      expect(route(facts(phase, kind, { holding: true })).hold).toBe(kind === "write");
    }
  });

  test("a token of a newer epoch is followed", () => {
    const newer = AUTHORITY[phase] === "old" ? "new" : "old";
    expect(route(facts(phase, "read", { standing: { newer } }))).toMatchObject({
      side: newer,
      reason: "newer-epoch",
    });
  });

  test("only a read that canary sent to new may fall back", () => {
    expect(route(facts(phase, "read")).fallback).toBe(phase === "canary");
    expect(route(facts(phase, "read", { pin: "new" })).fallback).toBe(false);
    expect(route(facts(phase, "write")).fallback).toBe(false);
  });
});

test("where new is the authority no follower is read from, whatever the phase says", () => {
  for (const phase of PHASES) {
    expect(wantedShare({ phase, authority: "new", readsNew: 0.5 })).toBe(0);
    expect(
      route({ ...facts(phase, "read"), state: { ...BASE, phase, authority: "new" } }).side,
    ).toBe("new");
  }
});

test("a mirror runs from dual-write to write-new, there only with a way back", () => {
  const mirrored = (hasReverse: boolean) => PHASES.filter((phase) => isMirrored(phase, hasReverse));
  expect(mirrored(true)).toEqual(PHASES.slice(1, -1));
  expect(mirrored(false)).toEqual(PHASES.slice(1, -2));
});

test.each([
  ["causal", true, true, true, "before-response"],
  ["causal", true, false, true, "none"],
  ["causal", true, true, false, "before-response"],
  ["strict", true, false, true, "until-passed"],
  ["strict", true, true, true, "until-passed"],
  ["strict", true, true, false, "before-response"],
  ["strict", true, false, false, "none"],
  ["strict", false, false, true, "none"],
  ["eventual", true, true, true, "none"],
] as const)(
  "%s: mirrored %s, tracking %s, passing %s: %s",
  (consistency, mirrored, tracking, passing, need) => {
    expect(fenceFor({ consistency, mirrored, tracking, passing })).toBe(need);
  },
);
