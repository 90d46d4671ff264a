import fc from "fast-check";

/** Draws one value. */
export type Draw = fc.GeneratorValue;
export interface Type {
  readonly sql: string;
  /** Literals, NULL left out; small pools so that keys meet again. */
  readonly values: (g: Draw) => string;
  readonly key?: true;
  readonly partition?: true;
}

const text = (g: Draw) =>
  g(() =>
    fc.oneof(
      fc.constantFrom("", "NULL", "\\N", "a,b", '{"x"}', "tab\tline\n", "\u{1F600}", "ß"),
      fc
        .string({ unit: "binary", maxLength: 12 })
        .filter((s) => !s.includes("\0") && s.isWellFormed()),
    ),
  );
export const from =
  (...values: readonly string[]) =>
  (g: Draw) =>
    g(() => fc.constantFrom(...values));

export const TYPES: readonly Type[] = [
  {
    sql: "int",
    key: true,
    partition: true,
    values: (g) => String(g(() => fc.integer({ min: -4, max: 9 }))),
  },
  {
    sql: "bigint",
    key: true,
    partition: true,
    values: from("9007199254740993", "-9223372036854775808", "9223372036854775807", "0", "7"),
  },
  {
    sql: "text",
    key: true,
    partition: true,
    values: (g) => (g(() => fc.boolean()) ? text(g) : from("a", "B", "b", "ä", "a b", "'")(g)),
  },
  { sql: "varchar(20)", key: true, values: from("a", "A", " a", "a ", "", '"') },
  { sql: "char(4)", key: true, values: from("a", "b ", "", "abcd") },
  {
    sql: "uuid",
    key: true,
    partition: true,
    values: (g) => `00000000-0000-0000-0000-00000000000${g(() => fc.integer({ min: 0, max: 9 }))}`,
  },
  { sql: "numeric", key: true, values: from("1.0", "2.50", "-3", "NaN", "1e40", "Infinity", "0") },
  { sql: "numeric(6,2)", values: from("1.005", "-9999.99", "0", "NaN") },
  { sql: "date", key: true, values: from("2024-02-29", "0044-03-15 BC", "infinity", "1969-12-31") },
  {
    sql: "timestamptz",
    key: true,
    values: from("2024-03-31 02:30:00.123456+02", "-infinity", "1969-01-01 00:00:00.000001+00"),
  },
  { sql: "timestamp(3)", values: from("2024-01-01 00:00:00.1239", "0001-01-01 BC", "infinity") },
  { sql: "interval", key: true, values: from("1 year -2 days", "00:00:00.000001", "-1 month") },
  { sql: "float8", key: true, values: from("0.1", "-0", "0", "1e300", "NaN", "5e-324") },
  { sql: "real", values: from("19.5", "0.1", "-0", "Infinity") },
  { sql: "boolean", values: from("true", "false") },
  { sql: "bytea", key: true, values: from("\\x00ff", "\\x", "\\x41") },
  { sql: "mood", key: true, partition: true, values: from("sad", 'so so, "fine"') },
  { sql: "pair", values: from('(1,"a,b")', "(,)", '(2,"")') },
  { sql: "posint", key: true, values: from("1", "7", "12") },
  { sql: "int[]", values: from("{1,NULL,3}", "[2:3]={1,2}", "{{1,2},{3,4}}", "{}") },
  { sql: "text[]", values: from('{"a,b","NULL",NULL,""}', "{}") },
  { sql: "mood[]", values: from('{sad,"so so, \\"fine\\""}', "{}") },
  { sql: "jsonb", values: from('{"a":1.0,"b":null}', "null", "1.10", "[]") },
  { sql: "json", values: from('{"a":1,  "a":2}', "null") },
  { sql: "int4range", key: true, values: from("[1,5)", "empty", "(,3]") },
  { sql: "int4multirange", values: from("{[1,2),[5,9)}", "{}") },
  { sql: "bit(4)", values: from("1010", "0000") },
  { sql: "varbit", values: from("101", "") },
  { sql: "inet", key: true, values: from("10.0.0.1", "10.0.0.0/8", "::1") },
  { sql: "macaddr", key: true, values: from("08:00:2b:01:02:03", "00:00:00:00:00:00") },
  { sql: "point", values: from("(1,-0)", "(0.1,NaN)") },
  { sql: "path", values: from("[(0,0),(1,1)]", "((0,0),(2,2))") },
  { sql: "xml", values: from('<a b="1">x</a>', "x") },
  { sql: "tsvector", values: from("fat:1A cat:2", "") },
  { sql: "money", values: from("-1234.56", "0") },
  { sql: "hstore", values: from('"a"=>NULL, "b,"=>"c"', "") },
];

export const NAMES = [
  "plain",
  "Mixed Case",
  'with "quote',
  "select",
  "ünï",
  "it's",
  "a.b",
  "a_b",
  "$1",
  "%s",
  "back\\slash",
  "user",
  "cf_t",
  "x".repeat(62),
  `${"x".repeat(61)}y`,
  "new",
  "excluded",
  " ",
  "tab\there",
  "k0",
  "--",
  "a b",
];
