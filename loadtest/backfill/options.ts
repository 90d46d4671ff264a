import { Command, Option } from "commander";
import type { BenchOptions } from "../bench.ts";
import { wholeNumber } from "../whole-number.ts";

export interface BackfillBenchOptions extends BenchOptions {
  /** Undefined: both. */
  readonly part?: "contest" | "app";
  readonly rows?: number;
  /** Undefined: the embedded Postgres. */
  readonly bin?: string;
}

export function backfillOptions(): BackfillBenchOptions {
  return new Command("bench:backfill")
    .description("how fast history is copied and compared, and what an app notices of it")
    .option("--json", "print one JSON document", false)
    .option("--quick", "fewer rows, one round, without the app", false)
    .addOption(new Option("--part <name>", "only this part").choices(["contest", "app"]))
    .option(
      "--rows <n>",
      "only Crossfade and a raw COPY, with 1 M rows and with so many",
      wholeNumber(1, 1e9),
    )
    .option("--bin <folder>", "measure on the Postgres whose programs are there")
    .parse()
    .opts<BackfillBenchOptions>();
}
