import { z } from "zod";
import { file, identifier, section, sql, sqlValue, text } from "./fields.ts";

/** Fields of `forward:` and `reverse:`. */

const from = z.union(
  [
    identifier("table"),
    section({
      table: identifier("table").describe("The driving table, at the side it is read from."),
      query: sql()
        .optional()
        .describe(
          "Joins, run at the side it is read from: a select that returns the driving table's key columns, one row per key.",
        ),
      key: z
        .array(identifier("column"))
        .min(1, { error: "found an empty list, expected at least one column" })
        .optional()
        .describe(
          "Columns that tell its rows apart, for a table without a primary key or unique index: not null, and no two rows alike. An index over them keeps the copy quick.",
        ),
      also: z
        .record(
          identifier("table"),
          sql().describe(
            "SQL over the changed row that gives the driving keys: an expression or a select.",
          ),
        )
        .optional()
        .describe(
          "Other tables the query or an expression reads: a change there re-makes the driving keys named by the SQL.",
        ),
    }),
  ],
  { error: "a table's name, or a map of table, query, key and also" },
);

const own = z.union(
  [
    z.literal("none"),
    z
      .record(identifier("column"), sqlValue().describe("SQL over the source key."))
      .refine((map) => Object.keys(map).length > 0, {
        error: "found an empty map, expected at least one column, or none",
      }),
  ],
  { error: "none, or a map of target columns to SQL over the source key" },
);

const mapping = section({
  from: from.describe("The table the rows come from; same-named columns are carried over."),
  where: sqlValue()
    .optional()
    .describe("SQL condition over the source row: only rows for which it is true are mapped."),
  own: own
    .optional()
    .describe(
      "Which target rows belong to one source row: target column to SQL over the source key. `none`: shared by many, never removed.",
    ),
  set: z
    .record(identifier("column"), sqlValue().describe("SQL over the source row."))
    .prefault({})
    .describe(
      "Target column to SQL over the source row, for columns that are not carried over as they are.",
    ),
  reject: z
    .record(text("a reason"), sqlValue().describe("SQL condition over the source row."))
    .prefault({})
    .describe(
      "Reason to SQL condition: rows for which it is true go to quarantine with that reason.",
    ),
  transform: file()
    .optional()
    .describe(
      "Instead of set, where and reject: a TypeScript or JavaScript module that makes the rows, relative to the plan's folder (docs/transforms.md).",
    ),
});

const mappings = z
  .union(
    [
      mapping,
      z.array(mapping).min(1, { error: "found an empty list, expected at least one mapping" }),
    ],
    {
      error: "a mapping (a map with at least `from`), or a list of mappings",
    },
  )
  .describe("How rows of this table are made from the other side: one mapping, or a list.");

export const mappingSet = z.union(
  [
    z.literal("identity"),
    z.record(identifier("table"), mappings).refine((map) => Object.keys(map).length > 0, {
      error: "found an empty map, expected at least one table, or identity",
    }),
  ],
  { error: "identity, or a map of tables to mappings" },
);

export type MappingFile = z.output<typeof mapping>;
export type MappingSetFile = z.output<typeof mappingSet>;
