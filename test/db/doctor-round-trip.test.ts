import { describe, expect, test } from "vitest";
import { renderDiagnosis } from "../../cli/check-view.ts";
import { mapping } from "../support/sync-world.ts";
import { world, examined, diagnosed, set, reverse } from "../support/doctor-world.ts";

/** A table that is split in two and joined again. */
const SPLIT = {
  old: "create table a (id int primary key, v text, w numeric(5, 2)); insert into a select n, nullif(n % 3, 0)::text, n from generate_series(1, 30) n",
  new: "create table a (id int primary key, w numeric); create table more (a_id int primary key references a, v text not null)",
  forward: [
    mapping("a", "a"),
    mapping("more", "a", { where: "v is not null", set: set({ a_id: "id" }) }),
  ],
};
const JOINED = {
  query: "select a.*, m.v from a left join more m on m.a_id = a.id",
  also: { more: "a_id" },
};

describe("the round trip", () => {
  test("is proven for every row, also where forward splits and reverse joins", async () => {
    const { roundTrip, findings } = await diagnosed({
      ...SPLIT,
      reverse: [reverse("a", "a", JOINED)],
    });
    expect(roundTrip).toEqual({ rows: 30, different: 0, unknown: [] });
    expect(findings.filter(({ severity }) => severity !== "ok")).toMatchObject([{ path: "old.a" }]);
  });

  test("rows that come back different are counted by column, with what was and what comes back", async () => {
    const given = {
      ...SPLIT,
      reverse: [
        reverse("a", "a", {
          ...JOINED,
          set: set({ v: "coalesce(v, 'none')", w: "case id when 7 then w + 1 else w end" }),
        }),
      ],
    };
    const { roundTrip, findings } = await diagnosed(given);
    expect(roundTrip).toMatchObject({ rows: 30, different: 11 });
    expect(findings[0]).toMatchObject({
      severity: "error",
      path: "back.a",
      rows: 11,
      what: expect.stringContaining("v in 10, w in 1"),
      example: { key: { id: "3" }, columns: { v: { expected: null, found: "none" } } },
    });
  });

  test("rows that do not come back, and rows that were never there", async () => {
    const lossy = await diagnosed({
      ...SPLIT,
      reverse: [reverse("a", "a", { ...JOINED, where: "id > 2" })],
    });
    expect(lossy.roundTrip).toMatchObject({ rows: 30, different: 2 });
    expect(lossy.findings[0]).toMatchObject({
      rows: 2,
      what: expect.stringContaining("do not come back"),
      example: { key: { id: "1" } },
    });
    const more = await diagnosed({
      ...SPLIT,
      reverse: [
        reverse("a", "a", {
          ...JOINED,
          set: set({ id: "case id when 5 then 500 else id end" }),
          own: set({ id: "id" }),
        }),
      ],
    });
    expect(more.findings.filter(({ severity }) => severity === "error")).toMatchObject([
      { rows: 1, what: expect.stringContaining("do not come back") },
      { rows: 1, what: expect.stringContaining("not there") },
    ]);
  });

  test("rows that never left are no rows that fail to come back", async () => {
    const given = {
      ...SPLIT,
      forward: [mapping("a", "a", { reject: set({ three: "id = 3" }) }), ...SPLIT.forward.slice(1)],
      reverse: [reverse("a", "a", JOINED)],
    };
    expect((await diagnosed(given)).roundTrip).toEqual({ rows: 29, different: 0, unknown: [] });
  });

  test("what cannot be followed is unknown, with the reason, and never ok", async () => {
    const plan = await world({ ...SPLIT, reverse: [reverse("a", "a", JOINED)] });
    const named = JOINED.query.replace("join more", `join ${plan.new.schema}.more`);
    const qualified = {
      ...plan,
      reverse: {
        kind: "tables" as const,
        mappings: [reverse("a", "a", { ...JOINED, query: named })],
      },
    };
    const { roundTrip, findings } = await examined(qualified);
    expect(roundTrip).toEqual({
      rows: 0,
      different: 0,
      unknown: [{ mapping: "back.a", why: expect.stringContaining("names the schema") }],
    });
    expect(findings).toContainEqual(
      expect.objectContaining({ severity: "unknown", path: "back.a" }),
    );
    const empty = await diagnosed({
      ...SPLIT,
      old: SPLIT.old.replace(/;.*/, ""),
      reverse: [reverse("a", "a", JOINED)],
    });
    expect(empty.roundTrip).toMatchObject({
      rows: 0,
      unknown: [{ why: expect.stringContaining("no rows") }],
    });
  });

  test("what could not be made on the way there is unknown on the way back, and no loss", async () => {
    const { roundTrip, findings } = await diagnosed({
      old: "create table a (id int primary key, n int); insert into a values (1, 1)",
      new: `create sequence s; create function drawn() returns int stable language sql as $$ select nextval('s')::int $$;
        create table a (id int primary key, n int)`,
      forward: [mapping("a", "a", { set: set({ n: "drawn()" }) })],
      reverse: [reverse("a", "a")],
    });
    expect(roundTrip).toMatchObject({ rows: 0, different: 0, unknown: [{ mapping: "back.a" }] });
    expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
  });

  test("values are redacted as the plan says, in messages too", async () => {
    const given = {
      ...SPLIT,
      redact: ["v"],
      reverse: [reverse("a", "a", { ...JOINED, set: set({ v: "coalesce(v, 'SECRET')" }) })],
    };
    const diagnosis = await diagnosed(given);
    expect(diagnosis.findings[0]).toMatchObject({
      example: { columns: { v: { expected: null, found: "(redacted)" } } },
    });
    const failing = await diagnosed({
      old: "create table a (id int primary key, v text); insert into a values (1, 'SECRET')",
      new: "create table a (id int primary key, v int)",
      forward: [mapping("a", "a", { set: set({ v: "v::int" }) })],
      redact: ["v"],
    });
    expect(failing.findings[0]).toMatchObject({ severity: "error", rows: 1 });
    expect(JSON.stringify(failing) + renderDiagnosis(failing).join()).not.toContain("SECRET");
  });
});

test("the way back is tried over the rows that are on new already, on the old side's own terms", async () => {
  const { findings } = await diagnosed({
    old: "create table a (id int primary key, v varchar(3)); insert into a values (1, 'x')",
    new: "create table a (id int primary key, v text); insert into a values (1, 'x'), (2, 'too long')",
    forward: [mapping("a", "a")],
    reverse: [reverse("a", "a")],
  });
  expect(findings.filter(({ severity }) => severity === "error")).toMatchObject([
    { path: "back.a.set.v", rows: 1, example: { key: { id: "2" } } },
  ]);
  expect(findings).toContainEqual(
    expect.objectContaining({
      severity: "warning",
      path: "new.a",
      what: expect.stringContaining("has rows before"),
    }),
  );
});
