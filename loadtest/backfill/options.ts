import { parseArgs } from "node:util";
import type { BenchOptions } from "../bench.ts";

const PARTS = ["contest", "app"] as const;

export interface BackfillBenchOptions extends BenchOptions {
  /** Undefined: both. */
  readonly part: (typeof PARTS)[number] | undefined;
  /** Only us, with 1 M rows and with so many. */
  readonly rows: number | undefined;
  /** Folder with the programs of an installed Postgres to measure on; undefined: the embedded one. */
  readonly bin: string | undefined;
}

export function backfillOptions(): BackfillBenchOptions {
  const { values } = parseArgs({
    options: {
      json: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      part: { type: "string" },
      rows: { type: "string" },
      bin: { type: "string" },
    },
  });
  const { json, quick, bin } = values;
  const part = PARTS.find((name) => name === values.part);
  if (values.part !== undefined && part === undefined)
    throw new Error(`--part: found "${values.part}", expected ${PARTS.join(" or ")}`);
  const rows = values.rows === undefined ? undefined : Number(values.rows);
  if (rows !== undefined && !(Number.isSafeInteger(rows) && rows > 0))
    throw new Error(`--rows: found "${values.rows}", expected a whole number above 0`);
  return { json, quick, part, rows, bin };
}
