import { join } from "node:path";
import type { MappingPlan } from "../../config/plan-types.ts";
import { mapping } from "./sync-world.ts";

/** A module of test/support/transforms. */
export const transformFile = (name: string) => join(import.meta.dirname, "transforms", name);

type Rest = Parameters<typeof mapping>[2];

/** One kind of mapping: what both sides look like, how rows get across, and what must arrive. */
export interface MappingCase {
  readonly name: string;
  readonly old: string;
  readonly new: string;
  readonly forward: readonly MappingPlan[];
  readonly reverse: readonly MappingPlan[];
  /** Run on the old side one after the other, each followed by a drain. */
  readonly writes: readonly string[];
  /** A query on the new side and what it returns then. */
  readonly arrives: readonly [string, readonly (readonly (string | null)[])[]];
  /** Run on the new side once it is the authority. */
  readonly back: string;
  /** A query on the old side and what it returns then. It must give every column: it also proves the round trip. */
  readonly returns: readonly [string, readonly (readonly (string | null)[])[]];
}

const one = (
  target: string,
  from: string,
  rest: Rest & { set?: never } = {},
  set: Record<string, string> = {},
) => mapping(target, from, { ...rest, set: new Map(Object.entries(set)) });
const nth = (n: number, plan: MappingPlan): MappingPlan => ({
  ...plan,
  path: `${plan.path}[${n}]`,
});
const own = (columns: Record<string, string>) => new Map(Object.entries(columns));

export const MAPPING_CASES: readonly MappingCase[] = [
  {
    name: "split: one table becomes two",
    old: "create table people (id int primary key, name text not null, city text)",
    new: `create table persons (id int primary key, first text not null, last text not null);
      create table homes (person int primary key references persons, city text not null)`,
    forward: [
      one(
        "persons",
        "people",
        {},
        { first: "split_part(name, ' ', 1)", last: "split_part(name, ' ', 2)" },
      ),
      one("homes", "people", { where: "city is not null" }, { person: "id" }),
    ],
    reverse: [
      one(
        "people",
        "persons",
        {
          query: "select p.*, h.city from persons p left join homes h on h.person = p.id",
          also: { homes: "person" },
        },
        { name: "first || ' ' || last" },
      ),
    ],
    writes: [
      "insert into people values (1, 'Ada Lovelace', 'London'), (2, 'Alan Turing', null), (3, 'Grace Hopper', 'Arlington')",
      "update people set city = null where id = 1; update people set city = 'Wilmslow' where id = 2; delete from people where id = 3",
    ],
    arrives: [
      "select id, first, last, city from persons left join homes on person = id order by id",
      [
        ["1", "Ada", "Lovelace", null],
        ["2", "Alan", "Turing", "Wilmslow"],
      ],
    ],
    back: "insert into homes values (1, 'Marylebone'); update persons set first = 'A.' where id = 2; delete from homes where person = 2",
    returns: [
      "select id, name, city from people order by id",
      [
        ["1", "Ada Lovelace", "Marylebone"],
        ["2", "A. Turing", null],
      ],
    ],
  },
  {
    name: "merge: two tables become one, told apart by a constant",
    old: "create table cats (id int primary key, name text); create table dogs (id int primary key, name text)",
    new: "create table pets (kind text, id int, name text, region text not null, primary key (kind, id))",
    forward: [
      nth(0, one("pets", "cats", {}, { kind: "'cat'", region: "'eu'" })),
      nth(1, one("pets", "dogs", {}, { kind: "'dog'", region: "'eu'" })),
    ],
    reverse: [
      one("cats", "pets", {
        where: "kind = 'cat'",
        own: own({ id: "case when kind = 'cat' then id end" }),
      }),
      one("dogs", "pets", {
        where: "kind = 'dog'",
        own: own({ id: "case when kind = 'dog' then id end" }),
      }),
    ],
    writes: [
      "insert into cats values (1, 'Tom'), (2, 'Felix'); insert into dogs values (1, 'Rex'), (2, 'Lassie')",
      "delete from cats where id = 1; update dogs set id = 3 where id = 2",
    ],
    arrives: [
      "select * from pets order by kind, id",
      [
        ["cat", "2", "Felix", "eu"],
        ["dog", "1", "Rex", "eu"],
        ["dog", "3", "Lassie", "eu"],
      ],
    ],
    back: "update pets set kind = 'cat', name = 'changed' where kind = 'dog' and id = 1; delete from pets where kind = 'dog' and id = 3",
    returns: [
      "select 'cat', * from cats union all select 'dog', * from dogs order by 1, 2",
      [
        ["cat", "1", "changed"],
        ["cat", "2", "Felix"],
      ],
    ],
  },
  {
    name: "normalise: rows shared by many, with keys that follow from their value",
    old: "create table orders (id int primary key, email text not null)",
    new: `create table customers (id uuid primary key, email text not null);
      create table purchases (id int primary key, customer uuid not null references customers)`,
    forward: [
      one("customers", "orders", { own: "none" }, { id: "md5(email)::uuid" }),
      one("purchases", "orders", {}, { customer: "md5(email)::uuid" }),
    ],
    reverse: [
      one("orders", "purchases", {
        query: "select p.id, c.email from purchases p join customers c on c.id = p.customer",
        also: { customers: "select id from purchases where customer = customers.id" },
      }),
    ],
    writes: [
      "insert into orders values (1, 'a@x'), (2, 'a@x'), (3, 'b@x')",
      "update orders set email = 'c@x' where id = 2; delete from orders where id = 3",
    ],
    arrives: [
      "select p.id, c.email from purchases p join customers c on c.id = p.customer order by 1",
      [
        ["1", "a@x"],
        ["2", "c@x"],
      ],
    ],
    back: "update customers set email = 'new@x' where email = 'a@x'; delete from purchases where id = 2",
    returns: ["select id, email from orders order by id", [["1", "new@x"]]],
  },
  {
    name: "denormalise: a join, followed through the joined table too",
    old: "create table authors (id int primary key, name text); create table books (id int primary key, author int, title text)",
    new: "create table writers (id int primary key, name text); create table works (id int primary key, author int, title text, author_name text)",
    forward: [
      one("writers", "authors"),
      one("works", "books", {
        query:
          "select b.*, a.name as author_name from books b left join authors a on a.id = b.author",
        also: { authors: "select id from books where author = authors.id" },
      }),
    ],
    reverse: [one("authors", "writers"), one("books", "works")],
    writes: [
      "insert into authors values (1, 'Ada'), (2, 'Bob'); insert into books values (1, 1, 'One'), (2, 2, 'Two'), (3, null, 'Three')",
      "update authors set name = 'Ada L.' where id = 1; delete from authors where id = 2; update books set author = 1 where id = 3",
    ],
    arrives: [
      "select * from works order by id",
      [
        ["1", "1", "One", "Ada L."],
        ["2", "2", "Two", null],
        ["3", "1", "Three", "Ada L."],
      ],
    ],
    back: "update works set title = 'First' where id = 1; delete from works where id = 2",
    returns: [
      "select b.*, a.name from books b left join authors a on a.id = b.author order by 1",
      [
        ["1", "1", "First", "Ada L."],
        ["3", "1", "Three", "Ada L."],
      ],
    ],
  },
  {
    name: "key change: int becomes uuid and comes back",
    old: "create table notes (id int primary key, body text)",
    new: "create table remarks (id uuid primary key, body text)",
    forward: [one("remarks", "notes", {}, { id: "lpad(to_hex(id), 32, '0')::uuid" })],
    reverse: [one("notes", "remarks", {}, { id: "('x' || right(id::text, 8))::bit(32)::int" })],
    writes: [
      "insert into notes values (1, 'one'), (2, 'two'), (3, 'three')",
      "update notes set id = 255 where id = 2; delete from notes where id = 3",
    ],
    arrives: [
      "select * from remarks order by id",
      [
        ["00000000-0000-0000-0000-000000000001", "one"],
        ["00000000-0000-0000-0000-0000000000ff", "two"],
      ],
    ],
    back: "update remarks set body = 'changed' where body = 'two'; insert into remarks values ('00000000-0000-0000-0000-000000000100', 'more')",
    returns: [
      "select id, body from notes order by id",
      [
        ["1", "one"],
        ["255", "changed"],
        ["256", "more"],
      ],
    ],
  },
  {
    name: "filters: a row enters and leaves a mapping as it changes",
    old: "create table docs (id int primary key, published boolean not null, title text)",
    new: "create table articles (id int primary key, title text); create table drafts (id int primary key, title text)",
    forward: [
      one("articles", "docs", { where: "published" }),
      one("drafts", "docs", { where: "not published" }),
    ],
    reverse: [
      nth(0, one("docs", "articles", {}, { published: "true" })),
      nth(1, one("docs", "drafts", {}, { published: "false" })),
    ],
    writes: [
      "insert into docs values (1, true, 'one'), (2, false, 'two'), (3, true, 'three')",
      "update docs set published = not published, title = upper(title) where id < 3; delete from docs where id = 3",
    ],
    arrives: [
      "select 'article', * from articles union all select 'draft', * from drafts order by 2",
      [
        ["draft", "1", "ONE"],
        ["article", "2", "TWO"],
      ],
    ],
    back: "delete from drafts where id = 1; insert into articles values (1, 'out'); delete from articles where id = 2; insert into drafts values (2, 'taken back')",
    returns: [
      "select id, published, title from docs order by id",
      [
        ["1", "t", "out"],
        ["2", "f", "taken back"],
      ],
    ],
  },
  {
    name: "soft delete: a mark on one side is a missing row on the other",
    old: "create table members (id int primary key, name text, gone boolean not null default false); create table parts (id int primary key, name text)",
    new: "create table accounts (id int primary key, name text); create table items (id int primary key, name text, gone boolean not null default false)",
    forward: [one("accounts", "members", { where: "not gone" }), one("items", "parts")],
    reverse: [one("members", "accounts"), one("parts", "items", { where: "not gone" })],
    writes: [
      "insert into members values (1, 'Ada', false), (2, 'Bob', false); insert into parts values (1, 'nut'), (2, 'bolt'), (3, 'screw')",
      "update members set gone = true where id = 2; delete from parts where id = 3",
      "update members set gone = not gone",
    ],
    arrives: [
      "select 'account', id, name, null from accounts union all select 'item', id, name, gone from items order by 1, 2",
      [
        ["account", "2", "Bob", null],
        ["item", "1", "nut", "f"],
        ["item", "2", "bolt", "f"],
      ],
    ],
    back: "update items set gone = true where id = 1; update accounts set name = 'Rob' where id = 2",
    returns: [
      "select 'member', id, name from members where not gone union all select 'part', id, name from parts order by 1, 2",
      [
        ["member", "2", "Rob"],
        ["part", "2", "bolt"],
      ],
    ],
  },
  {
    name: "lookup: values are found in another new table, which no mapping makes",
    old: "create table offices (id int primary key, country text)",
    new: `create table countries (id int primary key, code text unique); insert into countries values (10, 'de'), (20, 'fr');
      create table sites (id int primary key, country int references countries)`,
    forward: [
      one(
        "sites",
        "offices",
        {},
        { country: "(select c.id from countries c where c.code = offices.country)" },
      ),
    ],
    reverse: [
      one(
        "offices",
        "sites",
        {},
        { country: "(select c.code from countries c where c.id = sites.country)" },
      ),
    ],
    writes: [
      "insert into offices values (1, 'de'), (2, 'de'), (3, null)",
      "update offices set country = 'fr' where id = 2; delete from offices where id = 3",
    ],
    arrives: [
      "select * from sites order by id",
      [
        ["1", "10"],
        ["2", "20"],
      ],
    ],
    back: "update sites set country = 20 where id = 1; insert into sites values (4, 10)",
    returns: [
      "select id, country from offices order by id",
      [
        ["1", "fr"],
        ["2", "fr"],
        ["4", "de"],
      ],
    ],
  },
  {
    name: "transform: modules split what SQL cannot, and put it together again",
    old: "create table baskets (id int primary key, note text, items text)",
    new: `create table carts (id int primary key, note text);
      create table cart_lines (cart int, line int, sku text not null, qty numeric(8,2) not null, made timestamptz not null default now(), primary key (cart, line))`,
    forward: [
      one("carts", "baskets"),
      one("cart_lines", "baskets", {
        own: own({ cart: "id" }),
        transform: transformFile("order-lines.ts"),
      }),
    ],
    reverse: [
      one("baskets", "carts", {
        query:
          "select c.*, (select json_agg(json_build_object('sku', sku, 'qty', qty::text) order by line) from cart_lines where cart = c.id) as lines from carts c",
        also: { cart_lines: "cart" },
        transform: transformFile("order-items.ts"),
      }),
    ],
    writes: [
      "insert into baskets values (1, 'a', 'bolt*2.50;nut*1.00;pin*3.00'), (2, null, null), (3, 'c', 'cog*1.00')",
      "update baskets set items = 'nut*1.00;bolt*9.00' where id = 1; update baskets set items = 'tab\there''s*0.10' where id = 2; delete from baskets where id = 3",
    ],
    arrives: [
      "select id, note, line, sku, qty from carts join cart_lines on cart = id order by 1, 3",
      [
        ["1", "a", "1", "nut", "1.00"],
        ["1", "a", "2", "bolt", "9.00"],
        ["2", null, "1", "tab\there's", "0.10"],
      ],
    ],
    back: "insert into cart_lines values (1, 3, 'cog', 7); delete from cart_lines where cart = 2; insert into carts values (4, 'd')",
    returns: [
      "select id, note, items from baskets order by id",
      [
        ["1", "a", "nut*1.00;bolt*9.00;cog*7.00"],
        ["2", null, null],
        ["4", "d", null],
      ],
    ],
  },
];
