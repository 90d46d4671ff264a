import { expect } from "vitest";
import type { Severity } from "../../backfill/doctor/finding.ts";
import { type Case, set } from "./doctor-world.ts";
import { transformFile } from "./mapping-cases.ts";
import { mapping } from "./sync-world.ts";

interface Expected {
  readonly severity: Severity;
  readonly path: string;
  readonly rows?: number;
  readonly what?: unknown;
  readonly example?: unknown;
  readonly fix?: unknown;
}

const TRANSFORMED =
  "create table b (a int, n int, word text check (word <> 'refused'), primary key (a, n))";
const transformed = (name: string) =>
  mapping("b", "a", { own: set({ a: "id" }), transform: transformFile(name) });
const NUMBERS = "insert into a select n, n::text from generate_series(1, 100) n";

/** What every row of `old.a` does to the mapping; the finding that tells of it. */
export const DOCTOR_CASES: readonly (readonly [string, Case, Expected])[] = [
  [
    "an expression that fails on some rows: counted, with the column, a key and the message",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}; update a set v = 'x' || v where id in (7, 70)`,
      new: "create table a (id int primary key, v int)",
      forward: [mapping("a", "a", { set: set({ v: "v::int" }) })],
    },
    {
      severity: "error",
      path: "test.a.set.v",
      rows: 2,
      example: { key: { id: "7" }, message: 'invalid input syntax for type integer: "x7"' },
      fix: { where: "old", destructive: true },
    },
  ],
  [
    "a value too long for its column",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}; update a set v = 'abcd' where id > 97`,
      new: "create table a (id int primary key, v varchar(3))",
      forward: [mapping("a", "a")],
    },
    { severity: "error", path: "test.a.set.v", rows: 3, example: { key: { id: "98" } } },
  ],
  [
    "a number too large for its column",
    {
      old: "create table a (id int primary key, v numeric); insert into a values (1, 99.99), (2, 99.999), (3, 'NaN')",
      new: "create table a (id int primary key, v numeric(4, 2))",
      forward: [mapping("a", "a")],
    },
    { severity: "error", path: "test.a.set.v", rows: 1, example: { key: { id: "2" } } },
  ],
  [
    "an integer out of range",
    {
      old: "create table a (id int primary key, v bigint); insert into a values (1, 1), (2, 40000)",
      new: "create table a (id int primary key, v smallint)",
      forward: [mapping("a", "a")],
    },
    { severity: "error", path: "test.a.set.v", rows: 1, example: { key: { id: "2" } } },
  ],
  [
    "no value where one must be",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}; update a set v = null where id % 2 = 0`,
      new: "create table a (id int primary key, v text not null)",
      forward: [mapping("a", "a")],
    },
    { severity: "error", path: "test.a.set.v", rows: 50, fix: { where: "plan" } },
  ],
  [
    "a check constraint, counted without trying row by row",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}`,
      new: "create table a (id int primary key, v text constraint short check (length(v) < 2))",
      forward: [mapping("a", "a")],
    },
    { severity: "error", path: "test.a", what: expect.stringContaining("short"), rows: 91 },
  ],
  [
    "a domain",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}`,
      new: "create domain tiny as int check (value < 100); create table a (id int primary key, v tiny)",
      forward: [mapping("a", "a", { set: set({ v: "v::int" }) })],
    },
    { severity: "error", path: "test.a.set.v", rows: 1, example: { key: { id: "100" } } },
  ],
  [
    "what only the insert can tell: a generated column that fails",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}`,
      new: "create table a (id int primary key, v text, g int generated always as (100 / (v::int - 50)) stored)",
      forward: [mapping("a", "a")],
    },
    { severity: "error", path: "test.a", rows: 1, example: { key: { id: "50" } } },
  ],
  [
    "an enum without the label",
    {
      old: "create type mood as enum ('sad', 'glad'); create table a (id int primary key, v mood); insert into a values (1, 'sad'), (2, 'glad')",
      new: "create type mood as enum ('sad'); create table a (id int primary key, v mood)",
      forward: [mapping("a", "a")],
    },
    { severity: "error", path: "test.a", rows: 1, example: { key: { id: "2" } } },
  ],
  [
    "rows that the plan rejects, by reason",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}`,
      new: "create table a (id int primary key, v text)",
      forward: [mapping("a", "a", { reject: set({ "too many": "id > 90" }) })],
    },
    {
      severity: "warning",
      path: "test.a.reject.too many",
      rows: 10,
      example: { key: { id: "91" } },
    },
  ],
  [
    "two source rows that make one target row",
    {
      old: "create table a (id int primary key, v text); insert into a values (1, 'x'), (2, 'X'), (3, 'y')",
      new: "create table b (v text primary key, id int)",
      forward: [mapping("b", "a", { set: set({ v: "lower(v)" }), own: set({ id: "id" }) })],
    },
    {
      severity: "error",
      path: "test.b",
      rows: 2,
      what: expect.stringContaining("same key"),
      example: { key: { id: "1" } },
    },
  ],
  [
    "a unique index of the target, over an expression",
    {
      old: "create table a (id int primary key, v text); insert into a values (1, 'x'), (2, 'X'), (3, null), (4, null)",
      new: "create table a (id int primary key, v text); create unique index folded on a (lower(v))",
      forward: [mapping("a", "a")],
    },
    {
      severity: "error",
      path: "test.a",
      rows: 2,
      what: expect.stringContaining("unique index folded"),
    },
  ],
  [
    "a foreign key that points at nothing",
    {
      old: "create table p (id int primary key); create table a (id int primary key, p_id int); insert into p values (1); insert into a values (1, 1), (2, 9), (3, null)",
      new: "create table p (id int primary key); create table a (id int primary key, p_id int references p)",
      forward: [mapping("a", "a"), mapping("p", "p")],
    },
    {
      severity: "error",
      path: "test.a",
      rows: 1,
      what: expect.stringContaining("p_id"),
      example: { key: { id: "2" } },
    },
  ],
  [
    "shared rows whose columns do not follow from their key",
    {
      old: "create table a (id int primary key, v text, w text); insert into a values (1, 'x', 'p'), (2, 'x', 'q'), (3, 'y', 'r')",
      new: "create table tags (v text primary key, w text)",
      forward: [mapping("tags", "a", { own: "none" })],
    },
    { severity: "error", path: "test.tags", rows: 2, what: expect.stringContaining("(w)") },
  ],
  [
    "a query that yields a driving row twice",
    {
      old: "create table a (id int primary key); create table b (id int primary key, a_id int); insert into a values (1), (2); insert into b values (1, 2), (2, 2)",
      new: "create table a (id int primary key)",
      forward: [
        mapping("a", "a", {
          query: "select a.* from a left join b on b.a_id = a.id",
          also: { b: "a_id" },
          own: "none",
        }),
      ],
    },
    { severity: "error", path: "test.a.from.query", rows: 1, example: { key: { id: "2" } } },
  ],
  [
    "rows that their key does not own",
    {
      old: "create table a (id int primary key, v int); insert into a values (1, 1), (2, 5)",
      new: "create table b (v int primary key)",
      forward: [mapping("b", "a", { own: set({ v: "id" }) })],
    },
    { severity: "error", path: "test.b.own", rows: 1, example: { key: { id: "2" } } },
  ],
  [
    "a text that the encoding of the new database does not hold",
    {
      old: `create table a (id int primary key, v text); ${NUMBERS}; update a set v = '你好' where id = 42`,
      new: "create table a (id int primary key, v text)",
      forward: [mapping("a", "a")],
      encoding: "LATIN1",
    },
    { severity: "error", path: "test.a", rows: 1, example: { key: { id: "42" } } },
  ],
  [
    "a sequence that ends before the numbers in use",
    {
      old: "create table a (id bigint primary key); insert into a values (5), (32700)",
      new: "create table a (id bigint primary key); create sequence few as smallint owned by a.id; alter table a alter id set default nextval('few')",
      forward: [mapping("a", "a")],
    },
    { severity: "warning", path: "new.a.id", what: expect.stringContaining("ends at 32767") },
  ],
  [
    "a module that fails on rows",
    {
      old: "create table a (id int primary key, words text); insert into a values (1, 'throw'), (2, 'well'), (3, 'zero')",
      new: TRANSFORMED,
      forward: [transformed("troubled.ts")],
    },
    {
      severity: "error",
      path: "test.b.transform",
      rows: 2,
      what: expect.stringContaining("2 rows fail: the transform troubled.ts threw: no idea"),
      example: { key: { id: "1" } },
    },
  ],
  [
    "a module that rejects rows",
    {
      old: "create table a (id int primary key, words text); insert into a values (1, 'reject'), (2, 'well')",
      new: TRANSFORMED,
      forward: [transformed("troubled.ts")],
    },
    {
      severity: "warning",
      path: "test.b.transform",
      rows: 1,
      what: "1 row rejected, to wait in quarantine: not wanted",
      example: { key: { id: "1" } },
    },
  ],
  [
    "what a module says of values, where values are not to be shown",
    {
      old: "create table a (id int primary key, words text); insert into a values (1, 'reject'), (2, 'well')",
      new: TRANSFORMED,
      forward: [transformed("troubled.ts")],
      redact: ["words"],
    },
    {
      severity: "warning",
      path: "test.b.transform",
      what: "1 row rejected, to wait in quarantine: (redacted)",
    },
  ],
  [
    "rows of a module that break the target's rules",
    {
      old: `create table a (id int primary key, words text); ${NUMBERS}; update a set words = 'b,refused' where id = 7`,
      new: TRANSFORMED,
      forward: [transformed("troubled.ts")],
    },
    {
      severity: "error",
      path: "test.b",
      rows: 1,
      example: { key: { id: "7" } },
      fix: { where: "plan", text: expect.stringContaining("troubled.ts"), destructive: false },
    },
  ],
  [
    "a module that gives one answer and then another",
    {
      old: "create table a (id int primary key); insert into a values (1)",
      new: TRANSFORMED,
      forward: [transformed("forgetful.ts")],
    },
    {
      severity: "error",
      path: "test.b.transform",
      rows: 1,
      what: expect.stringContaining("one answer for a row and then another"),
    },
  ],
  [
    "no rows: nothing is proven",
    {
      old: "create table a (id int primary key)",
      new: "create table a (id int primary key)",
      forward: [mapping("a", "a")],
    },
    { severity: "unknown", path: "test.a" },
  ],
  [
    "a mapping that would write, whatever its function says of itself, is not tried",
    {
      old: "create table a (id int primary key); insert into a values (1)",
      new: `create sequence s; create function drawn() returns int stable language sql as $$ select nextval('s')::int $$;
        create table a (id int primary key, n int)`,
      forward: [mapping("a", "a", { set: set({ n: "drawn()" }) })],
    },
    { severity: "unknown", path: "test.a", what: expect.stringContaining("changes nothing") },
  ],
  [
    "triggers of the target",
    {
      old: "create table a (id int primary key); insert into a values (1)",
      new: `create table a (id int primary key); create function f() returns trigger language plpgsql as 'begin return null; end';
        create trigger counts after insert on a for each row execute function f()`,
      forward: [mapping("a", "a")],
    },
    { severity: "warning", path: "new.a", what: expect.stringContaining("counts") },
  ],
  [
    "a large table without the index that a lookup of `also` needs",
    {
      old: "create table a (id int primary key); create table c (id int primary key, a_id int); insert into a select generate_series(1, 20000); insert into c select n, n from generate_series(1, 20000) n; analyze a; analyze c",
      new: "create table a (id int primary key, n bigint)",
      forward: [
        mapping("a", "a", {
          query: "select a.*, (select count(*) from c where c.a_id = a.id) as n from a",
          also: { c: "a_id" },
        }),
      ],
      rows: 100,
    },
    {
      severity: "warning",
      path: "test.a.from.query",
      fix: {
        where: "old",
        text: expect.stringMatching(/^create index concurrently on ".*"\."c" \("a_id"\);$/),
        destructive: false,
      },
    },
  ],
];
